package nft

import (
	"context"
	"math/rand/v2"
	"slices"

	"varco.dev/internal/service"
)

// Kernel commits transactions to nftables.
type Kernel interface {
	// Commit applies the whole transaction or nothing of it, and blocks until the kernel has done so. A transaction
	// with Replace may be committed again; another one fails if someone else has replaced or deleted the tables.
	Commit(ctx context.Context, tx Transaction) error
}

// Transaction is a change of the tables that packets see as one.
type Transaction struct {
	// Generation is what the tables are marked with: a transaction with Replace sets it, and any other applies only to
	// tables that have it. Without that, two writers would unknowingly use the same ids for different Services.
	Generation Generation
	// Replace starts from nothing: whatever our tables hold is dropped in the same moment. Without it, what is deleted
	// must be there, and what is added must not.
	Replace bool
	Classes []Class // classes that need a chain and have none yet; sorted
	Delete  []Element
	Add     []Element
}

// Generation is a random number for each time that the tables are written from nothing.
type Generation uint64

// Empty tells whether the transaction does nothing.
func (tx Transaction) Empty() bool {
	return !tx.Replace && len(tx.Classes) == 0 && len(tx.Delete) == 0 && len(tx.Add) == 0
}

// entry is what stands at a place, and how many Ports want it there: two Services with the same backend share its
// Hairpins element.
type entry struct {
	value string
	refs  int
}

// state is what the kernel holds after the last commit.
type state struct {
	generation Generation
	entries    map[Place]entry
	classes    map[Class]bool
	slots      map[service.Key][]service.Backend // the backends of a port by slot
	ids        numbers
}

func newState() *state {
	return &state{
		generation: Generation(rand.Uint64()),
		entries:    map[Place]entry{},
		classes:    map[Class]bool{},
		slots:      map[service.Key][]service.Backend{},
		ids:        numbers{of: map[service.Key]uint32{}},
	}
}

// diff returns the transaction that takes back the elements of old and brings those of new, with the entries after it.
func (s *state) diff(old, new []Element) (Transaction, map[Place]entry) {
	after := make(map[Place]entry, len(old)+len(new))
	at := func(p Place) entry {
		if e, ok := after[p]; ok {
			return e
		}
		return s.entries[p]
	}
	for _, e := range old {
		x := at(e.Place)
		x.refs--
		after[e.Place] = x
	}
	for _, e := range new {
		after[e.Place] = entry{value: e.Value, refs: at(e.Place).refs + 1}
	}
	tx := Transaction{Generation: s.generation}
	for p, x := range after {
		before := s.entries[p]
		same := before.value == x.value && x.refs > 0
		if before.refs > 0 && !same {
			tx.Delete = append(tx.Delete, Element{p, before.value})
		}
		if x.refs > 0 && (before.refs == 0 || !same) {
			tx.Add = append(tx.Add, Element{p, x.value})
		}
	}
	tx.Classes = s.missingClasses(tx.Add)
	slices.SortFunc(tx.Delete, Element.Compare)
	slices.SortFunc(tx.Add, Element.Compare)
	return tx, after
}

// missingClasses returns the classes of elements that have no chain yet. Those without backends need none.
func (s *state) missingClasses(add []Element) (missing []Class) {
	for _, e := range add {
		if e.Set != Services && e.Set != NodePorts {
			continue
		}
		c := classIn(e.Value)
		if c.Backends() > 0 && !s.classes[c] && !slices.Contains(missing, c) {
			missing = append(missing, c)
		}
	}
	slices.Sort(missing)
	return missing
}

// commit takes over what diff returned.
func (s *state) commit(tx Transaction, after map[Place]entry) {
	for p, x := range after {
		if x.refs > 0 {
			s.entries[p] = x
		} else {
			delete(s.entries, p)
		}
	}
	for _, c := range tx.Classes {
		s.classes[c] = true
	}
}

// numbers gives each key a number that no other key has, and reuses those given back.
type numbers struct {
	of   map[service.Key]uint32
	free []uint32
}

func (n *numbers) get(k service.Key) uint32 {
	if id, ok := n.of[k]; ok {
		return id
	}
	id := uint32(len(n.of) + len(n.free))
	if last := len(n.free) - 1; last >= 0 {
		id, n.free = n.free[last], n.free[:last]
	}
	n.of[k] = id
	return id
}

func (n *numbers) put(k service.Key) {
	if id, ok := n.of[k]; ok {
		delete(n.of, k)
		n.free = append(n.free, id)
	}
}
