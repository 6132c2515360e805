package nft

import (
	"slices"
	"time"
)

// maxUnusedClasses is how many chains of classes are kept that nothing points to. Numbers of backends that were in use are
// likely to be so again, and a chain costs a few hundred bytes; adding and deleting one costs the kernel a validation of
// the whole table.
const maxUnusedClasses = 64

// retireTime is how long a chain stays after its class is gone: kernels before 6.2 refuse to delete a chain until a moment
// after the last element that pointed to it.
const retireTime = 2 * time.Second

// classes are those that have a chain.
type classes struct {
	uses    map[Class]int       // how many elements point to each; 0: unused
	unused  int                 // of how many that is none
	retired map[Class]time.Time // those that are gone since then, but for their chains
}

func newClasses() classes {
	return classes{uses: map[Class]int{}, retired: map[Class]time.Time{}}
}

// plan has a transaction, which changes the number of uses, add the classes that have no chain yet, retire all that are
// unused when they have become many, and delete the chains of those retired for long enough.
func (cs *classes) plan(tx *Transaction, more map[Class]int) {
	unused := cs.unused
	for c, n := range more {
		before, known := cs.uses[c]
		switch {
		case !known && n > 0:
			tx.Classes = append(tx.Classes, c)
		case before == 0 && n > 0:
			unused--
		case before > 0 && before+n == 0:
			unused++
		}
	}
	if unused > maxUnusedClasses {
		for c, n := range cs.uses {
			if n+more[c] == 0 {
				tx.Unused = append(tx.Unused, c)
			}
		}
	}
	for c, since := range cs.retired {
		if time.Since(since) > retireTime || slices.Contains(tx.Classes, c) {
			tx.Chains = append(tx.Chains, c)
		}
	}
	for _, list := range [][]Class{tx.Classes, tx.Unused, tx.Chains} {
		slices.SortFunc(list, Class.Compare)
	}
}

// commit takes over what was planned.
func (cs *classes) commit(tx Transaction, more map[Class]int) {
	count := func(c Class, n int) {
		if cs.uses[c] == 0 {
			cs.unused--
		}
		if cs.uses[c] += n; cs.uses[c] == 0 {
			cs.unused++
		}
	}
	for _, c := range tx.Classes {
		cs.uses[c] = 0
		cs.unused++
	}
	for c, n := range more {
		count(c, n)
	}
	for _, c := range tx.Chains {
		delete(cs.retired, c)
	}
	for _, c := range tx.Unused {
		delete(cs.uses, c)
		cs.unused--
		cs.retired[c] = time.Now()
	}
}

// know enters a class that has a chain already.
func (cs *classes) know(c Class) {
	cs.uses[c] = 0
	cs.unused++
}

// retire enters a class of which there is only the chain.
func (cs *classes) retire(c Class) { cs.retired[c] = time.Now() }
