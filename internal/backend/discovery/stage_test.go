package discovery_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/backend/discovery"
)

// Errors as net.Resolver returns them.
func errNoSuchName() error { return &net.DNSError{Err: "no such host", Name: "api", IsNotFound: true} }
func errServer() error {
	return &net.DNSError{Err: "server misbehaving", Name: "api", IsTemporary: true}
}
func errHosts() error { return &net.AddrError{Err: "no suitable address found", Addr: "api"} }

// errHang has a resolver say nothing until it is not asked any more.
var errHang = errors.New("hangs")

// reply is what a resolver answers: the addresses of the family asked for, or no such name if there are none.
type reply struct {
	addrs      string // separated by spaces
	err        error  // for both families
	err4, err6 error
	slow       time.Duration
}

// resolver is a DNS server.
type resolver struct {
	mu      sync.Mutex
	replies map[string]reply
	asked   map[string]int
}

func (r *resolver) set(name string, a reply) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.replies[name] = a
}

func (r *resolver) count(name string) int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.asked[name]
}

func (r *resolver) LookupNetIP(ctx context.Context, network, host string) ([]netip.Addr, error) {
	r.mu.Lock()
	a, ok := r.replies[host]
	r.asked[host]++
	r.mu.Unlock()
	if !ok {
		return nil, errNoSuchName()
	}
	err := errors.Join(a.err, map[string]error{"ip4": a.err4, "ip6": a.err6}[network])
	if errors.Is(err, errHang) {
		<-ctx.Done()
		return nil, &net.DNSError{Err: ctx.Err().Error(), Name: host, IsTimeout: true}
	}
	select {
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-time.After(a.slow):
	}
	if err != nil {
		return nil, err
	}
	var out []netip.Addr
	for _, s := range strings.Fields(a.addrs) {
		if ip := netip.MustParseAddr(s); ip.Unmap().Is4() == (network == "ip4") {
			out = append(out, ip)
		}
	}
	if len(out) == 0 {
		return nil, errNoSuchName()
	}
	return out, nil
}

// lines is a log that can be read.
type lines struct {
	mu   sync.Mutex
	text strings.Builder
}

func (l *lines) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.Write(b)
}

func (l *lines) count(what string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return strings.Count(l.text.String(), what)
}

// watched stands for the EndpointSlices.
type watched struct {
	changes chan []netip.AddrPort
	ends    chan error // Slices returns this
	starts  int
}

func newWatched() *watched {
	return &watched{changes: make(chan []netip.AddrPort), ends: make(chan error)}
}

func (w *watched) slices(ctx context.Context, changed func([]netip.AddrPort)) error {
	w.starts++
	for {
		select {
		case <-ctx.Done():
			return nil
		case err := <-w.ends:
			return err
		case addrs := <-w.changes:
			changed(addrs)
		}
	}
}

// say has the slices name addresses, and returns when that is known.
func (w *watched) say(addrs string) {
	w.changes <- addrPorts(addrs)
	synctest.Wait()
}

func addrPorts(text string) []netip.AddrPort {
	out := []netip.AddrPort{}
	for _, s := range strings.Fields(text) {
		out = append(out, netip.MustParseAddrPort(s))
	}
	return out
}

// stage is a discovery that runs.
type stage struct {
	*discovery.Discovery
	t        *testing.T
	log      *lines
	resolver *resolver
	told     []string // what Changed was called with
	end      func()
}

// start runs a discovery in a bubble of synctest until the test ends it, or ends itself. The resolver knows nothing.
func start(t *testing.T, c discovery.Config, prepare ...func(*stage)) *stage {
	t.Helper()
	s := &stage{t: t, log: &lines{}, resolver: &resolver{replies: map[string]reply{}, asked: map[string]int{}}}
	for _, p := range prepare {
		p(s)
	}
	if c.Resolver == nil {
		c.Resolver = s.resolver
	}
	c.Log = slog.New(slog.NewTextHandler(s.log, nil))
	c.Changed = func(f []discovery.Found) { s.told = append(s.told, describe(f)) }
	d, err := discovery.New(c)
	if err != nil {
		t.Fatal(err)
	}
	s.Discovery = d
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	s.end = sync.OnceFunc(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v at the end of its context", err)
		}
	})
	t.Cleanup(s.end)
	synctest.Wait()
	return s
}

// replies prepares what the resolver says of a name.
func replies(name string, a reply) func(*stage) {
	return func(s *stage) { s.resolver.set(name, a) }
}

// period lets a name be looked up once more, and its answer be taken.
func (s *stage) period() {
	time.Sleep(discovery.DefaultPeriod*11/10 + time.Millisecond) // the bubble's clock
	synctest.Wait()
}

// want fails the test unless that is found, in the words of describe.
func (s *stage) want(when string, want ...string) {
	s.t.Helper()
	if got := describe(s.Found()); got != strings.Join(want, ", ") {
		s.t.Errorf("%s: found\n%s, want\n%s", when, got, strings.Join(want, ", "))
	}
}

// describe returns "ADDRESS[@ZONE] SOURCE, …".
func describe(found []discovery.Found) string {
	var out []string
	for _, f := range found {
		zone := ""
		if f.Zone != "" {
			zone = "@" + f.Zone
		}
		out = append(out, fmt.Sprintf("%s%s %s", f.Addr, zone, f.Source))
	}
	return strings.Join(out, ", ")
}

func static(addresses ...string) (out []discovery.Static) {
	for _, a := range addresses {
		address, zone, _ := strings.Cut(a, "@")
		out = append(out, discovery.Static{Address: address, Zone: zone})
	}
	return out
}
