package discovery

import (
	"context"
	"errors"
	"math/rand/v2"
	"net"
	"net/netip"
	"time"
)

const (
	// firstRetry is the pause before a name is looked up again that has not been found yet: there may be nothing else to go by.
	firstRetry = time.Second
	// familyDelay is how long the first addresses of a name wait for those of the other family (RFC 8305, section 3).
	familyDelay = 50 * time.Millisecond
)

// The families, as an index and as networks of a Resolver. They are asked for one by one: a resolver that is asked for both
// says nothing of one that failed, and half the servers would seem to be gone.
const (
	ipv4 = iota
	ipv6
	families
)

func network(family int) string {
	return [families]string{"ip4", "ip6"}[family]
}

// lookup looks a name up, again and again.
type lookup struct {
	config   Config
	source   *source // only its name and port are read
	known    [families][]netip.AddrPort
	answered bool
	answers  chan<- answer
}

// result is the answer for one family.
type result struct {
	family int
	addrs  []netip.AddrPort
	err    error
	none   bool // it is sure that there are none
}

// families returns the addresses of a source by family.
func (s *source) families() (out [families][]netip.AddrPort) {
	for _, a := range s.addrs {
		family := ipv4
		if a.Addr().Is6() {
			family = ipv6
		}
		out[family] = append(out[family], a)
	}
	return out
}

func (l *lookup) run(ctx context.Context) {
	for ctx.Err() == nil {
		l.once(ctx)
		pause := l.config.Period - l.config.Period/10 + rand.N(l.config.Period/5+1) // nodes that start together do not ask together
		if !l.answered {
			pause = min(pause, firstRetry)
		}
		sleep(ctx, pause)
	}
}

// once asks for both families at the same time, and hands on what is known then. Before the first answer it does not wait
// long for the other family: there are DNS servers that never answer for IPv6.
func (l *lookup) once(ctx context.Context) {
	asked, cancel := context.WithTimeout(ctx, LookupTimeout)
	defer cancel()
	results := make(chan result, families)
	for family := range families {
		go func() { results <- l.ask(asked, family) }()
	}
	first := <-results
	var late <-chan time.Time
	if len(first.addrs) > 0 && !l.answered {
		late = time.After(familyDelay)
	}
	select {
	case second := <-results:
		l.conclude(ctx, first, second)
	case <-late:
		l.known[first.family] = first.addrs
		l.tell(ctx, answer{addrs: l.all()})
		l.conclude(ctx, first, <-results)
	}
}

// conclude hands on what the answers for both families come to. One that is sure to have no addresses counts only if the
// other has some.
func (l *lookup) conclude(ctx context.Context, results ...result) {
	some := false
	var problems []error
	for _, r := range results {
		some = some || len(r.addrs) > 0
		problems = append(problems, r.err)
	}
	if !some {
		l.tell(ctx, answer{err: errors.Join(problems...)})
		return
	}
	for _, r := range results {
		if len(r.addrs) > 0 || r.none {
			l.known[r.family] = r.addrs
		}
	}
	l.tell(ctx, answer{addrs: l.all()})
}

func (l *lookup) all() []netip.AddrPort {
	return append(append([]netip.AddrPort{}, l.known[ipv4]...), l.known[ipv6]...)
}

func (l *lookup) tell(ctx context.Context, a answer) {
	a.from = l.source
	if len(a.addrs) > 0 {
		l.answered = true
	}
	select {
	case <-ctx.Done():
	case l.answers <- a:
	}
}

func (l *lookup) ask(ctx context.Context, family int) result {
	ips, err := l.config.Resolver.LookupNetIP(ctx, network(family), l.source.host)
	r := result{family: family, err: err}
	for _, ip := range ips {
		r.addrs = append(r.addrs, netip.AddrPortFrom(ip.Unmap(), l.source.port))
	}
	r.none = err == nil && len(ips) == 0 || noSuchHost(err)
	return r
}

// noSuchHost says whether it is sure that a name has no address of a family. net.Resolver tells by an AddrError if the file
// of hosts has the name, but with addresses of the other family only.
func noSuchHost(err error) bool {
	var dns *net.DNSError
	if errors.As(err, &dns) {
		return dns.IsNotFound
	}
	var addr *net.AddrError
	return errors.As(err, &addr)
}

// sleep waits, but not beyond the end of the context.
func sleep(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
