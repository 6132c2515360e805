package nettest

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"testing"
)

// Limits of one row of a packet table.
const (
	leastTries  = 16 // connections, before a backend that nobody expects counts as absent
	mostTries   = 64 // connections, before one that is expected does: of 4 each is left out once in 10^7 runs
	refusals    = 3  // connections that must be refused
	dropsAtOnce = 64 // rows that wait for nothing at a time
)

// Row is one row of a packet table: what happens to connections from a host to an address.
type Row struct {
	From     string // name of a host
	To       netip.AddrPort
	Protocol string // "tcp", "udp" or "sctp"
	Want     Verdict
	Note     string // optional: what To is, for messages
}

// String names the row for messages.
func (r Row) String() string {
	return strings.TrimSpace(fmt.Sprintf("%s to %s %s %s", r.From, r.Protocol, r.To, r.Note))
}

// Verdict is what a client sees. The zero value is a drop: no answer at all.
type Verdict struct {
	Backends []string // names of all servers that answer, sorted
	Source   string   // name of the host that servers take the client for
	Reject   bool     // refused at once
}

// String names the verdict as tables write it.
func (v Verdict) String() string {
	switch {
	case v.Reject && v.Backends == nil:
		return "reject"
	case v.Reject:
		return fmt.Sprintf("%s as %s, and reject", strings.Join(v.Backends, " "), v.Source)
	case v.Backends == nil:
		return "drop"
	}
	return strings.Join(v.Backends, " ") + " as " + v.Source
}

// Equal compares verdicts.
func (v Verdict) Equal(w Verdict) bool {
	return v.Reject == w.Reject && v.Source == w.Source && slices.Equal(v.Backends, w.Backends)
}

func (v Verdict) drop() bool { return !v.Reject && len(v.Backends) == 0 }

// Hosts are the parties of a packet table.
type Hosts struct {
	Namespaces map[string]*Namespace // name of a host -> where it sends from
	Names      map[netip.Addr]string // address -> name of the host, for Verdict.Source
}

// RunTable sends real packets for each row, each in a subtest of its own. The servers must answer as Echo does.
func RunTable(t *testing.T, h Hosts, rows []Row) {
	t.Helper()
	drops := h.waitForDrops(t.Context(), rows)
	for i, r := range rows {
		t.Run(r.String(), func(t *testing.T) {
			got := drops[i]
			if !r.Want.drop() {
				got.verdict, got.err = h.Send(t.Context(), r)
			}
			if got.err != nil {
				t.Fatal(got.err)
			}
			if !got.verdict.Equal(r.Want) {
				t.Errorf("got %s, want %s", got.verdict, r.Want)
			}
		})
	}
}

type outcome struct {
	verdict Verdict
	err     error
}

// waitForDrops sends for all rows that want a drop, at once: there is nothing to do but wait. The index is that of the row.
func (h Hosts) waitForDrops(ctx context.Context, rows []Row) map[int]outcome {
	var all sync.WaitGroup
	var mu sync.Mutex
	free := make(chan struct{}, dropsAtOnce)
	out := map[int]outcome{}
	for i, r := range rows {
		if !r.Want.drop() {
			continue
		}
		all.Go(func() {
			free <- struct{}{}
			defer func() { <-free }()
			v, err := h.Send(ctx, r)
			mu.Lock()
			defer mu.Unlock()
			out[i] = outcome{v, err}
		})
	}
	all.Wait()
	return out
}

// Send opens as many connections as it takes to see all backends, and returns what the client saw. Row.Want tells how many
// that are, and how long an answer is waited for.
func (h Hosts) Send(ctx context.Context, r Row) (v Verdict, err error) {
	client := Client{Host: h.Namespaces[r.From], Protocol: r.Protocol}
	if r.Want.drop() {
		client.Patience = dropTimeout
	}
	refused := 0
	for n := 0; n < mostTries && refused < refusals; n++ {
		if n >= leastTries && v.Equal(sorted(r.Want)) {
			break
		}
		a, err := client.Ask(ctx, r.To)
		switch {
		case errors.Is(err, ErrRefused):
			v.Reject = true
			refused++
			continue
		case errors.Is(err, ErrNoAnswer):
			return Verdict{}, nil
		case err != nil:
			return v, err
		}
		if err := h.add(&v, a); err != nil {
			return v, err
		}
	}
	return v, nil
}

func sorted(v Verdict) Verdict {
	v.Backends = slices.Sorted(slices.Values(v.Backends))
	return v
}

// add enters an answer into a verdict.
func (h Hosts) add(v *Verdict, a Answer) error {
	source, ok := h.Names[a.Client.Addr()]
	if !ok {
		return fmt.Errorf("%s saw %s, which is no host's address", a.Server, a.Client)
	}
	if v.Source != "" && v.Source != source {
		return fmt.Errorf("seen once as %s, once as %s, by %s", v.Source, source, a.Server)
	}
	v.Source = source
	if i, found := slices.BinarySearch(v.Backends, a.Server); !found {
		v.Backends = slices.Insert(v.Backends, i, a.Server)
	}
	return nil
}
