//go:build linux

package loop_test

import (
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/relay/loop"
)

// book is a Balancer that picks the first of its backends that has not been tried, and keeps a book of what it hears.
type book struct {
	mu       sync.Mutex // guards all below
	backends []netip.AddrPort
	clients  []loop.Client
	attempts []*attempt
	changed  chan struct{}                // closed at the next event
	asked    func(tried []netip.AddrPort) // optional
	heard    func(attempt int, event string)
}

// attempt is one answer of Pick, with what was reported of it.
type attempt struct {
	number  int
	backend netip.AddrPort
	events  []string
}

func newBook(backends ...netip.AddrPort) *book {
	return &book{backends: backends, changed: make(chan struct{})}
}

// names are the words for events in this package's tests.
var names = map[loop.Event]string{
	loop.Connected: "Connected", loop.Answered: "Answered", loop.Refused: "Refused", loop.Unreachable: "Unreachable",
	loop.Silent: "Silent", loop.Broken: "Broken", loop.Ended: "Ended",
}

// Pick implements loop.Balancer.
func (b *book) Pick(c loop.Client, tried []netip.AddrPort) (loop.Attempt, bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.clients = append(b.clients, c)
	if b.asked != nil {
		b.asked(tried)
	}
	for _, backend := range b.backends {
		if !slices.Contains(tried, backend) {
			a := &attempt{number: len(b.attempts), backend: backend}
			b.attempts = append(b.attempts, a)
			return loop.Attempt{Backend: backend, Report: func(e loop.Event) { b.report(a, e) }}, true
		}
	}
	return loop.Attempt{}, false
}

func (b *book) report(a *attempt, e loop.Event) {
	b.mu.Lock()
	defer b.mu.Unlock()
	a.events = append(a.events, names[e])
	if b.heard != nil {
		b.heard(a.number, names[e])
	}
	close(b.changed)
	b.changed = make(chan struct{})
}

// tells has a function be told what Pick hears of backends that were tried.
func (b *book) tells(fn func(tried []netip.AddrPort)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.asked = fn
}

// set changes the backends.
func (b *book) set(backends ...netip.AddrPort) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.backends = backends
}

// story returns the events of each attempt, separated by spaces, and a channel that is closed at the next event.
func (b *book) story() ([]string, <-chan struct{}) {
	b.mu.Lock()
	defer b.mu.Unlock()
	var out []string
	for _, a := range b.attempts {
		out = append(out, strings.Join(a.events, " "))
	}
	return out, b.changed
}

// wants waits for the attempts to have exactly these events.
func (b *book) wants(t testing.TB, want ...string) {
	t.Helper()
	deadline := time.After(within)
	for {
		got, changed := b.story()
		if slices.Equal(got, want) {
			return
		}
		select {
		case <-changed:
		case <-deadline:
			t.Fatalf("events, -want +got:\n%s", cmp.Diff(want, got))
		}
	}
}

// client returns the client that the first attempt was for.
func (b *book) client(t testing.TB) loop.Client {
	t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.clients) == 0 {
		t.Fatal("nobody was asked for a backend")
	}
	return b.clients[0]
}

// check wants each attempt to have ended once, after all else that was said of it.
func (b *book) check(t testing.TB) {
	t.Helper()
	stories, _ := b.story()
	wrong := slices.DeleteFunc(stories, func(s string) bool {
		return strings.Count(s, "Ended") == 1 && strings.HasSuffix(s, "Ended")
	})
	if len(wrong) > 0 {
		t.Errorf("%d attempts have not Ended once and last, the first of them: %q", len(wrong), wrong[0])
	}
}

// eventually waits for what nobody tells of.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(within); !ok(); time.Sleep(time.Millisecond) { // nobody tells of it
		if time.Now().After(deadline) {
			t.Fatalf("not within %v: %s", within, what)
		}
	}
}
