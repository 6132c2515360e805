package nft

import (
	"cmp"
	"context"
	"math/rand/v2"
	"slices"

	"varco.dev/internal/service"
)

// Kernel commits transactions to nftables, and tells what it holds.
type Kernel interface {
	// Commit applies the whole transaction or nothing of it, and blocks until the kernel has done so. A transaction
	// with Replace may be committed again; another one fails if someone else has replaced or deleted the tables.
	Commit(ctx context.Context, tx Transaction) error
	// Read returns what the tables hold. Tables that are not there, or not as this program would make them, are no error.
	Read(ctx context.Context) (Content, error)
}

// Content is what the tables hold.
type Content struct {
	// Sound tells that all that is not an element is as this program makes it. Otherwise nothing else is told: the tables
	// are to be replaced.
	Sound      bool
	Generation Generation
	Classes    []Class        // that have a chain; sorted
	Retired    []Class        // that have a chain to which nothing leads; sorted
	Lengths    []SourceLength // that have a rule; sorted
	Elements   []Element      // sorted
}

// Transaction is a change of the tables that packets see as one.
type Transaction struct {
	// Generation is what the tables are marked with: a transaction with Replace sets it, and any other applies only to
	// tables that have it. Without that, two writers would unknowingly use the same ids for different Services.
	Generation Generation
	// Replace starts from nothing: whatever our tables hold is dropped in the same moment. Without it, what is deleted
	// must be there, and what is added must not.
	Replace bool
	Classes []Class        // classes that need a chain and have none yet; sorted
	Unused  []Class        // classes that nothing points to any more, which are to go but for their chains; sorted
	Chains  []Class        // classes that went so before, whose chains are to go, before others are added; sorted
	Lengths []SourceLength // lengths of source ranges that need a rule and have none yet; sorted
	Delete  []Element
	Add     []Element
}

// Generation is a random number for each time that the tables are written from nothing.
type Generation uint64

// Empty tells whether the transaction does nothing.
func (tx Transaction) Empty() bool {
	return !tx.Replace && len(tx.Classes) == 0 && len(tx.Unused) == 0 && len(tx.Chains) == 0 && len(tx.Lengths) == 0 && len(tx.Delete) == 0 && len(tx.Add) == 0
}

// state is what the kernel holds after the last commit, but for what follows from the Ports and their slots.
type state struct {
	generation Generation
	shared     map[Place]int // how many Ports want an element of a set whose elements may have several owners
	classes    classes
	lengths    map[SourceLength]bool
	slots      map[service.Key]Slots // of Ports that balance at random, where they do not follow from the backends alone
	ids        numbers
}

func newState() *state {
	return &state{
		generation: Generation(rand.Uint64()),
		shared:     map[Place]int{},
		classes:    newClasses(),
		lengths:    map[SourceLength]bool{},
		slots:      map[service.Key]Slots{},
		ids:        numbers{of: map[service.Key]uint32{}},
	}
}

// render returns the elements of a Port before and after a change, but for those that are the same anyway, and its slots
// after it.
func (s *state) render(c service.Change, count Counters) (old, new []Element, slots Slots) {
	key := c.Key()
	number, before := s.ids.get(key), s.slotsOf(c.Old, key)
	if c.Old != nil && c.New != nil && c.Old.Balance != c.New.Balance {
		slots = SlotsOf(c.New, Slots{})
	} else {
		slots = SlotsOf(c.New, before)
	}
	return render(c.Old, c.New, number, before, slots, count), render(c.New, c.Old, number, slots, before, count), slots
}

// slotsOf returns the slots of a Port that is there. It is nil if there was none.
func (s *state) slotsOf(p *service.Port, key service.Key) Slots {
	if kept, ok := s.slots[key]; ok {
		return kept
	}
	return SlotsOf(p, Slots{})
}

// settle remembers the slots of a port, unless they follow from its backends, or that it is gone.
func (s *state) settle(c service.Change, slots Slots) {
	key := c.Key()
	delete(s.slots, key)
	switch {
	case c.New == nil:
		s.ids.put(key)
	case c.New.Balance == service.Random && !slots.equal(SlotsOf(c.New, Slots{})):
		s.slots[key] = slots
	}
}

// diff returns the transaction that takes back the elements of old and brings those of new, and what commit is to take over
// when the kernel has it.
func (s *state) diff(old, new []Element) (Transaction, after) {
	a := after{shared: map[Place]int{}, uses: map[Class]int{}}
	had, has := a.count(old, -1), a.count(new, 1)
	tx := Transaction{Generation: s.generation}
	for p, value := range has {
		before, there := had[p]
		delete(had, p)
		if there && before == value {
			continue
		}
		if there {
			tx.Delete = append(tx.Delete, Element{p, before})
		}
		tx.Add = append(tx.Add, Element{p, value})
	}
	for p, value := range had {
		tx.Delete = append(tx.Delete, Element{p, value})
	}
	for p, more := range a.shared {
		switch before := s.shared[p]; {
		case before == 0 && more > 0:
			tx.Add = append(tx.Add, Element{Place: p})
		case before > 0 && before+more == 0:
			tx.Delete = append(tx.Delete, Element{Place: p})
		}
	}
	slices.SortFunc(tx.Delete, Element.Compare)
	slices.SortFunc(tx.Add, Element.Compare)
	s.classes.plan(&tx, a.uses)
	s.planLengths(&tx)
	return tx, a
}

// after is what a transaction changes in the state: how many Ports more or less want a shared element, and how many
// elements more or less point to a class.
type after struct {
	shared map[Place]int
	uses   map[Class]int
}

// count enters elements that come or go, and returns those that have one owner.
func (a after) count(elements []Element, sign int) map[Place]string {
	own := make(map[Place]string, len(elements))
	for _, e := range elements {
		if e.Set.shared() {
			a.shared[e.Place] += sign
			continue
		}
		own[e.Place] = e.Value
		if e.Set.points() {
			a.uses[classIn(e.Value)] += sign
		}
	}
	return own
}

// commit takes over what diff returned.
func (s *state) commit(tx Transaction, a after) {
	for p, more := range a.shared {
		if s.shared[p] += more; s.shared[p] <= 0 {
			delete(s.shared, p)
		}
	}
	for _, l := range tx.Lengths {
		s.lengths[l] = true
	}
	s.classes.commit(tx, a.uses)
}

// SourceLength is a length of source ranges, of which each has a rule.
type SourceLength struct {
	Family service.Family
	Bits   int
}

// Compare orders lengths by family, the longest first.
func (l SourceLength) Compare(m SourceLength) int {
	return cmp.Or(cmp.Compare(l.Family, m.Family), cmp.Compare(m.Bits, l.Bits))
}

// planLengths has a transaction add the rules that its source ranges need.
func (s *state) planLengths(tx *Transaction) {
	for _, e := range tx.Add {
		if e.Set != Sources {
			continue
		}
		l := SourceLength{e.Family, int(bitsIn(e.Place))}
		if !s.lengths[l] && !slices.Contains(tx.Lengths, l) {
			tx.Lengths = append(tx.Lengths, l)
		}
	}
	slices.SortFunc(tx.Lengths, SourceLength.Compare)
}

// numbers gives each key a number that no other key has, and reuses those given back.
type numbers struct {
	of   map[service.Key]uint32
	free []uint32
	next uint32 // all numbers from it on are free
}

func (n *numbers) get(k service.Key) uint32 {
	if number, ok := n.of[k]; ok {
		return number
	}
	number := n.next
	if last := len(n.free) - 1; last >= 0 {
		number, n.free = n.free[last], n.free[:last]
	} else {
		n.next++
	}
	n.of[k] = number
	return number
}

func (n *numbers) put(k service.Key) {
	if number, ok := n.of[k]; ok {
		delete(n.of, k)
		n.free = append(n.free, number)
	}
}

// take gives a key a number that no other key has. collect is to follow.
func (n *numbers) take(k service.Key, number uint32) {
	n.of[k] = number
	n.next = max(n.next, number+1)
}

// collect makes the numbers free that lie between those taken.
func (n *numbers) collect(taken map[uint32]bool) {
	for number := range n.next {
		if !taken[number] {
			n.free = append(n.free, number)
		}
	}
}
