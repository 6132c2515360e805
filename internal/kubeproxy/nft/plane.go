package nft

import (
	"context"
	"fmt"

	"varco.dev/internal/service"
)

// Plane is the data plane: it keeps the kernel's tables as the Changes say. It is not safe for concurrent use.
type Plane struct {
	kernel Kernel
	state  *state
}

// New returns a data plane that knows nothing of what the kernel holds: its first call must be Replace.
func New(k Kernel) *Plane { return &Plane{kernel: k, state: newState()} }

// Update applies Changes to what the kernel holds, in one transaction. After an error nothing has changed, and the
// caller is to call Replace: the kernel may not hold what was committed last.
func (p *Plane) Update(ctx context.Context, c service.Changes) error {
	if err := p.apply(ctx, p.state, c, false); err != nil {
		return fmt.Errorf("update nftables: %w", err)
	}
	return nil
}

// Replace makes the kernel hold exactly the given state, which is Changes from nothing, whatever it held before, in one
// transaction. It may be repeated.
func (p *Plane) Replace(ctx context.Context, all service.Changes) error {
	fresh := newState()
	if err := p.apply(ctx, fresh, all, true); err != nil {
		return fmt.Errorf("replace nftables tables: %w", err)
	}
	p.state = fresh
	return nil
}

func (p *Plane) apply(ctx context.Context, s *state, c service.Changes, replace bool) error {
	old, new := RenderNode(c.OldNode), RenderNode(c.NodeAddrs)
	slots := map[service.Key][]service.Backend{}
	for _, change := range c.Ports {
		key := change.Key()
		id := s.ids.get(key)
		if change.Old != nil {
			old = append(old, Render(change.Old, id, s.slots[key])...)
		}
		if change.New != nil {
			slots[key] = arrange(s.slots[key], change.New.Backends)
			new = append(new, Render(change.New, id, slots[key])...)
		}
	}
	tx, after := s.diff(old, new)
	tx.Replace = replace
	if !tx.Empty() {
		if err := p.kernel.Commit(ctx, tx); err != nil {
			return fmt.Errorf("delete %d elements, add %d: %w", len(tx.Delete), len(tx.Add), err)
		}
	}
	s.commit(tx, after)
	for _, change := range c.Ports {
		s.settle(change, slots[change.Key()])
	}
	return nil
}

// settle remembers the slots of a port, or that it is gone.
func (s *state) settle(c service.Change, slots []service.Backend) {
	key := c.Key()
	if c.New == nil {
		delete(s.slots, key)
		s.ids.put(key)
		return
	}
	s.slots[key] = slots
}
