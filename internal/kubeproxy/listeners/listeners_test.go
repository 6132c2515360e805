package listeners_test

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/kubeproxy/listeners"
)

// network is one where places are numbers, each can be opened once, and some can be refused.
type network struct {
	mu      sync.Mutex // guards all but changed
	wanted  []int
	changed chan struct{}
	open    map[int]*door
	refuse  map[int]bool
	told    []string
	counts  []int
	tries   int
}

type door struct {
	of    *network
	at    int
	ended bool
}

func (d *door) Close() {
	d.of.mu.Lock()
	defer d.of.mu.Unlock()
	if d.of.open[d.at] != d {
		panic("closed twice")
	}
	delete(d.of.open, d.at)
}

func (d *door) Ended() (ended bool) {
	d.of.do(func() { ended = d.ended })
	return ended
}

func (n *network) listen(_ context.Context, at int) (listeners.Listener, error) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.tries++
	if n.refuse[at] || n.open[at] != nil {
		return nil, errors.New("taken")
	}
	n.open[at] = &door{of: n, at: at}
	return n.open[at], nil
}

// start runs a Keeper of at most three listeners until the function that it returns is called.
func start(t *testing.T, wanted ...int) (n *network, end func()) {
	n = &network{wanted: wanted, changed: make(chan struct{}, 1), open: map[int]*door{}, refuse: map[int]bool{}}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	k := listeners.Keeper[int]{
		Changed: n.changed, Open: n.listen, Most: 3,
		Wanted: func() (wanted []int) { n.do(func() { wanted = n.wanted }); return wanted },
		Failed: func(at int, err error) { n.do(func() { n.told = append(n.told, fmt.Sprint(at, " ", err)) }) },
		Count:  func(open int) { n.do(func() { n.counts = append(n.counts, open) }) },
	}
	go func() { ended <- k.Run(ctx) }()
	return n, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
	}
}

func (n *network) do(fn func()) {
	n.mu.Lock()
	defer n.mu.Unlock()
	fn()
}

func (n *network) set(wanted ...int) {
	n.do(func() { n.wanted = wanted })
	n.look()
}

func (n *network) look() {
	n.changed <- struct{}{}
	synctest.Wait()
}

func want[T any](t *testing.T, what string, want, got []T) {
	t.Helper()
	if len(want) == 0 && len(got) == 0 {
		return
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("%s: -want +got:\n%s", what, diff)
	}
}

func (n *network) list() (open []int) {
	n.do(func() { open = slices.Sorted(maps.Keys(n.open)) })
	return open
}

func (n *network) at(place int) (d *door) {
	n.do(func() { d = n.open[place] })
	return d
}

// tried returns how often something was to be opened.
func (n *network) tried() (tries int) {
	n.do(func() { tries = n.tries })
	return tries
}

// failures returns what was told of.
func (n *network) failures() (told []string) {
	n.do(func() { told = slices.Clone(n.told) })
	return told
}

func TestKeeperFollows(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, end := start(t, 1, 2)
		synctest.Wait()
		want(t, "first", []int{1, 2}, n.list())
		kept := n.at(2)
		n.set(2, 3)
		want(t, "changed", []int{2, 3}, n.list())
		if n.at(2) != kept {
			t.Error("what stays was opened again")
		}
		n.set()
		want(t, "nothing", nil, n.list())
		n.set(1)
		end()
		want(t, "at the end", nil, n.list())
		want(t, "counts", []int{2, 2, 0, 1, 0}, n.counts)
		want(t, "failures", nil, n.failures())
	})
}

// TestKeeperTriesAgain after 1, 2, 4 seconds and so on, 30 at most, and tells of it once.
func TestKeeperTriesAgain(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, end := start(t)
		defer end()
		synctest.Wait()
		n.do(func() { n.refuse[1] = true })
		n.set(1, 2)
		want(t, "one is taken", []int{2}, n.list())
		tries := n.tried()
		time.Sleep(time.Minute + 2*time.Second) // of the fake clock: attempts after 1, 3, 7, 15, 31 and 61 seconds
		synctest.Wait()
		if got := n.tried() - tries; got != 6 {
			t.Errorf("tried %d times in a minute, want 6", got)
		}
		want(t, "told", []string{"1 taken"}, n.failures())
		n.do(func() { n.refuse[1] = false })
		time.Sleep(30 * time.Second) // of the fake clock
		synctest.Wait()
		want(t, "free again", []int{1, 2}, n.list())
		n.do(func() { n.refuse[1] = true })
		n.set(2)
		n.set(1, 2)
		want(t, "taken anew", []string{"1 taken", "1 taken"}, n.failures())
		tries = n.tried()
		time.Sleep(1100 * time.Millisecond) // of the fake clock
		synctest.Wait()
		if got := n.tried() - tries; got != 1 {
			t.Errorf("tried %d times in the first second, want once", got)
		}
	})
}

func TestKeeperOpensWhatHasEnded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, end := start(t, 1)
		defer end()
		synctest.Wait()
		first := n.at(1)
		n.do(func() { first.ended = true })
		n.look()
		if now := n.at(1); now == nil || now == first {
			t.Error("it was not opened again")
		}
	})
}

func TestKeeperIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		n, end := start(t, 1, 2, 3, 4)
		defer end()
		synctest.Wait()
		want(t, "three of four", []int{1, 2, 3}, n.list())
		want(t, "told", []string{"4 there are too many listeners on this node"}, n.failures())
		n.set(2, 3, 4)
		want(t, "one has gone", []int{2, 3, 4}, n.list())
	})
}
