package nft

import (
	"context"
	"errors"
	"fmt"
	"slices"

	"varco.dev/internal/service"
)

// Plane is the data plane: it keeps the kernel's tables as the Changes say. It is not safe for concurrent use.
type Plane struct {
	kernel   Kernel
	counters Counters
	families []service.Family // that the kernel has tables of; nil: all
	state    *state
}

// limited is a Kernel that says of which families it has tables. A node need not have all those that the API has.
type limited interface{ Families() []service.Family }

// New returns a data plane that knows nothing of what the kernel holds: its first call must be Replace.
func New(k Kernel) *Plane {
	p := &Plane{kernel: k, counters: countersOf(k), state: newState()}
	if l, ok := k.(limited); ok {
		p.families = l.Families()
	}
	return p
}

// Update applies Changes to what the kernel holds, in one transaction. After an error nothing has changed, and the
// caller is to call Replace: the kernel may not hold what was committed last.
func (p *Plane) Update(ctx context.Context, c service.Changes) error {
	if err := p.apply(ctx, p.state, c); err != nil {
		return fmt.Errorf("update nftables: %w", err)
	}
	return nil
}

// adoptions is how often the tables are read before new ones take their place: what is in the middle of another process's
// work may not look sound, or change until the differences are committed.
const adoptions = 3

// elementsPerPort is how many elements to make room for; more is no harm.
const elementsPerPort = 6

// Replace makes the kernel hold exactly the given state, which is Changes from nothing, whatever it held before, in one
// transaction. It may be repeated.
//
// What the kernel holds already stays, with what its elements have counted and which backend each client had, as long as
// the tables are sound: they may be those of a process before this one, or damaged in their elements. Otherwise, and if
// the kernel refuses the differences, new tables take their place.
func (p *Plane) Replace(ctx context.Context, all service.Changes) error {
	for range adoptions {
		content, err := p.kernel.Read(ctx)
		if errors.Is(err, errors.ErrUnsupported) {
			return err
		}
		if err != nil || !content.Sound {
			continue
		}
		fresh := newState()
		fresh.adopt(&content, all.Ports)
		if err := p.replace(ctx, fresh, all, &content); err == nil || ctx.Err() != nil {
			return err
		}
	}
	if err := p.replace(ctx, newState(), all, nil); err != nil {
		return fmt.Errorf("replace nftables tables: %w", err)
	}
	return nil
}

// replace commits the whole state, or what of it differs from the content that fresh has adopted.
func (p *Plane) replace(ctx context.Context, fresh *state, all service.Changes, adopted *Content) error {
	elements := make([]Element, 0, elementsPerPort*len(all.Ports))
	elements = append(append(elements, RenderNode(all.NodeAddrs)...), RenderCIDRs(all.CIDRs)...)
	slots := make([]Slots, len(all.Ports))
	for i, change := range all.Ports {
		key := change.Key()
		slots[i] = SlotsOf(change.New, fresh.slots[key])
		elements = append(elements, Render(change.New, fresh.ids.get(key), slots[i], p.counters)...)
	}
	tx, after := fresh.whole(p.served(elements))
	if tx.Replace = adopted == nil; adopted != nil {
		tx.Delete, tx.Add = differ(adopted.Elements, tx.Add)
	}
	if err := p.commit(ctx, fresh, tx, after); err != nil {
		return err
	}
	for i, change := range all.Ports {
		fresh.settle(change, slots[i])
	}
	p.state = fresh
	return nil
}

func (p *Plane) apply(ctx context.Context, s *state, c service.Changes) error {
	old := append(RenderNode(c.OldNode), RenderCIDRs(c.OldCIDRs)...)
	new := append(RenderNode(c.NodeAddrs), RenderCIDRs(c.CIDRs)...)
	slots := make([]Slots, len(c.Ports))
	for i, change := range c.Ports {
		o, n, after := s.render(change, p.counters)
		old, new, slots[i] = append(old, o...), append(new, n...), after
	}
	tx, after := s.diff(p.served(old), p.served(new))
	if err := p.commit(ctx, s, tx, after); err != nil {
		return err
	}
	for i, change := range c.Ports {
		s.settle(change, slots[i])
	}
	return nil
}

// served leaves out the elements of families that there are no tables of. It changes the slice.
func (p *Plane) served(elements []Element) []Element {
	if p.families == nil {
		return elements
	}
	return slices.DeleteFunc(elements, func(e Element) bool { return !slices.Contains(p.families, e.Family) })
}

// commit hands a transaction to the kernel, and what comes after it to the state.
func (p *Plane) commit(ctx context.Context, s *state, tx Transaction, a after) error {
	if !tx.Empty() {
		if err := p.kernel.Commit(ctx, tx); err != nil {
			return fmt.Errorf("delete %d elements, add %d: %w", len(tx.Delete), len(tx.Add), err)
		}
	}
	s.commit(tx, a)
	return nil
}
