package nft

import (
	"context"
	"fmt"

	"varco.dev/internal/service"
)

// Plane is the data plane: it keeps the kernel's tables as the Changes say. It is not safe for concurrent use.
type Plane struct {
	kernel Kernel
	state  state
	ids    numbers
}

// New returns a data plane that knows nothing of what the kernel holds: its first call must be Replace.
func New(k Kernel) *Plane {
	return &Plane{kernel: k, state: newState(), ids: numbers{of: map[service.Key]uint32{}}}
}

// Update applies Changes to what the kernel holds, in one transaction. After an error nothing has changed, and the
// caller is to call Replace: the kernel may not hold what was committed last.
func (p *Plane) Update(ctx context.Context, c service.Changes) error {
	old, new := RenderNode(c.OldNode), RenderNode(c.NodeAddrs)
	for _, change := range c.Ports {
		id := p.ids.get(change.Key())
		if change.Old != nil {
			old = append(old, Render(change.Old, id)...)
		}
		if change.New != nil {
			new = append(new, Render(change.New, id)...)
		}
	}
	tx, after := p.state.diff(old, new)
	if tx.Empty() {
		p.forget(c)
		return nil
	}
	if err := p.kernel.Commit(ctx, tx); err != nil {
		return fmt.Errorf("update nftables (%d elements to delete, %d to add): %w", len(tx.Delete), len(tx.Add), err)
	}
	p.state.commit(tx, after)
	p.forget(c)
	return nil
}

// Replace makes the kernel hold exactly the given state, whatever it held before, in one transaction. It may be
// repeated.
func (p *Plane) Replace(ctx context.Context, all service.Changes) error {
	fresh := newState()
	ids := numbers{of: map[service.Key]uint32{}}
	new := RenderNode(all.NodeAddrs)
	for _, change := range all.Ports {
		new = append(new, Render(change.New, ids.get(change.Key()))...)
	}
	tx, after := fresh.diff(nil, new)
	tx.Replace = true
	if err := p.kernel.Commit(ctx, tx); err != nil {
		return fmt.Errorf("replace nftables tables (%d elements): %w", len(tx.Add), err)
	}
	fresh.commit(tx, after)
	p.state, p.ids = fresh, ids
	return nil
}

// forget gives back the numbers of ports that are gone.
func (p *Plane) forget(c service.Changes) {
	for _, change := range c.Ports {
		if change.New == nil {
			p.ids.put(change.Key())
		}
	}
}
