// Package nfttest has a kernel for tests of the nftables data plane: it keeps state, refuses what the real one refuses,
// and fails on purpose.
package nfttest

import (
	"context"
	"fmt"
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

	mu         sync.Mutex // guards the fields below
	elements   map[nft.Place]string
	classes    map[nft.Class]bool
	generation nft.Generation
	commits    int
}

// Commit implements nft.Kernel with the kernel's rules: ENOENT for what is missing, EEXIST for what is there with another
// value, and nothing changed after an error.
func (k *Kernel) Commit(_ context.Context, tx nft.Transaction) error {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.commits++
	if k.Fail != nil {
		if err := k.Fail(tx); err != nil {
			return err
		}
	}
	elements, classes := map[nft.Place]string{}, map[nft.Class]bool{}
	if !tx.Replace {
		if k.elements == nil || k.generation != tx.Generation {
			return fmt.Errorf("no table of generation %d: %w", tx.Generation, unix.ENOENT)
		}
		for p, v := range k.elements {
			elements[p] = v
		}
		for c := range k.classes {
			classes[c] = true
		}
	}
	for _, c := range tx.Classes {
		classes[c] = true
	}
	if err := change(elements, tx); err != nil {
		return err
	}
	k.elements, k.classes, k.generation = elements, classes, tx.Generation
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

// Lose deletes the tables, as another program would.
func (k *Kernel) Lose() {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.elements, k.classes = nil, nil
}

// Commits returns the number of commits so far, failed ones included.
func (k *Kernel) Commits() int {
	k.mu.Lock()
	defer k.mu.Unlock()
	return k.commits
}

// Dump returns the elements and classes as lines of text, sorted.
func (k *Kernel) Dump() string {
	k.mu.Lock()
	defer k.mu.Unlock()
	var lines []string
	for p, v := range k.elements {
		lines = append(lines, nft.Element{Place: p, Value: v}.String())
	}
	for c := range k.classes {
		lines = append(lines, "class "+c.String())
	}
	slices.Sort(lines)
	return strings.Join(append(lines, ""), "\n")
}
