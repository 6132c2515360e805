// Package nfttest has a kernel for tests of the nftables data plane: it keeps state, refuses what the real one refuses,
// and fails on purpose.
package nfttest

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
	"varco.dev/internal/kubeproxy/nft"
)

// Kernel is a nft.Kernel in memory. The zero value has no tables.
type Kernel struct {
	// Fail is asked before each commit; an error makes the commit fail with nothing changed. Optional.
	Fail func(tx nft.Transaction) error
	// FailRead is asked before each reading, which its error makes fail. Optional.
	FailRead func() error

	mu     sync.Mutex // guards the fields below
	tables *tables    // nil: there are none
	count  int
}

// tables are what transactions change.
type tables struct {
	generation nft.Generation
	broken     bool // a chain is not as it was made
	elements   map[nft.Place]string
	classes    map[nft.Class]bool // true: an element leads to the chain
	lengths    map[nft.SourceLength]bool
}

func newTables(g nft.Generation) *tables {
	return &tables{generation: g, elements: map[nft.Place]string{}, classes: map[nft.Class]bool{}, lengths: map[nft.SourceLength]bool{}}
}

func (t *tables) clone() *tables {
	c := *t
	c.elements, c.classes, c.lengths = maps.Clone(t.elements), maps.Clone(t.classes), maps.Clone(t.lengths)
	return &c
}

// Commit implements nft.Kernel with the kernel's rules: ENOENT for what is missing, EEXIST for what is there with another
// value, and nothing changed after an error. What the kernel would take though it makes no sense is EINVAL.
func (k *Kernel) Commit(_ context.Context, tx nft.Transaction) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.count++
	if k.Fail != nil {
		if err := k.Fail(tx); err != nil {
			return err
		}
	}
	t := newTables(tx.Generation)
	if !tx.Replace {
		if k.tables == nil {
			return fmt.Errorf("no table: %w", unix.ENOENT)
		}
		if k.tables.generation != tx.Generation {
			return fmt.Errorf("table of generation %d, not %d: %w", k.tables.generation, tx.Generation, unix.EEXIST)
		}
		t = k.tables.clone()
	}
	if err := t.apply(tx); err != nil {
		return err
	}
	k.tables = t
	return nil
}

func (t *tables) apply(tx nft.Transaction) error {
	for _, c := range tx.Chains {
		if leads, ok := t.classes[c]; !ok || leads {
			return fmt.Errorf("delete the chain of %s: there %t, in use %t: %w", c, ok, leads, unix.EBUSY)
		}
		delete(t.classes, c)
	}
	for _, c := range tx.Unused {
		if !t.classes[c] {
			return fmt.Errorf("retire class %s: %w", c, unix.ENOENT)
		}
		t.classes[c] = false
	}
	for _, c := range tx.Classes {
		if _, ok := t.classes[c]; ok {
			return fmt.Errorf("class %s would have its rules twice: %w", c, unix.EINVAL)
		}
		t.classes[c] = true
	}
	for _, l := range tx.Lengths {
		if t.lengths[l] {
			return fmt.Errorf("length %v would have its rule twice: %w", l, unix.EINVAL)
		}
		t.lengths[l] = true
	}
	if err := change(t.elements, tx); err != nil {
		return err
	}
	for _, e := range tx.Add {
		if c, ok := e.Class(); ok && !t.classes[c] {
			return fmt.Errorf("%s leads nowhere: %w", e, unix.EINVAL)
		}
	}
	return nil
}

func change(elements map[nft.Place]string, tx nft.Transaction) error {
	for _, e := range tx.Delete {
		if _, ok := elements[e.Place]; !ok {
			return fmt.Errorf("delete %s: %w", e, unix.ENOENT)
		}
		delete(elements, e.Place)
	}
	for _, e := range tx.Add {
		if v, ok := elements[e.Place]; ok && v != e.Value {
			return fmt.Errorf("add %s: %w", e, unix.EEXIST)
		}
		elements[e.Place] = e.Value
	}
	return nil
}

// Read implements nft.Kernel.
func (k *Kernel) Read(context.Context) (nft.Content, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.FailRead != nil {
		if err := k.FailRead(); err != nil {
			return nft.Content{}, err
		}
	}
	if k.tables == nil || k.tables.broken {
		return nft.Content{}, nil
	}
	c := nft.Content{Sound: true, Generation: k.tables.generation}
	for p, v := range k.tables.elements {
		c.Elements = append(c.Elements, nft.Element{Place: p, Value: v})
	}
	for class, leads := range k.tables.classes {
		if leads {
			c.Classes = append(c.Classes, class)
		} else {
			c.Retired = append(c.Retired, class)
		}
	}
	c.Lengths = slices.Collect(maps.Keys(k.tables.lengths))
	slices.SortFunc(c.Elements, nft.Element.Compare)
	slices.SortFunc(c.Classes, nft.Class.Compare)
	slices.SortFunc(c.Retired, nft.Class.Compare)
	slices.SortFunc(c.Lengths, nft.SourceLength.Compare)
	return c, nil
}

// Lose deletes the tables, as another program would.
func (k *Kernel) Lose() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.tables = nil
}

// Break changes a rule, as another program would.
func (k *Kernel) Break() {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tables != nil {
		k.tables.broken = true
	}
}

// Damage lets fn change the elements, as another program would.
func (k *Kernel) Damage(fn func(elements map[nft.Place]string)) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if k.tables != nil {
		fn(k.tables.elements)
	}
}

// Commits returns the number of commits so far, failed ones included.
func (k *Kernel) Commits() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.count
}

// Dump returns the elements and classes as lines of text, sorted.
func (k *Kernel) Dump() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var lines []string
	if k.tables != nil {
		for p, v := range k.tables.elements {
			lines = append(lines, nft.Element{Place: p, Value: v}.String())
		}
		for c := range k.tables.classes {
			lines = append(lines, "class "+c.String())
		}
	}
	slices.Sort(lines)
	return strings.Join(append(lines, ""), "\n")
}
