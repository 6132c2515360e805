package apiserverlb

import (
	"cmp"
	"context"
	"maps"
	"net/netip"
	"slices"
	"time"

	"varco.dev/internal/apiserverlb/https"
	"varco.dev/internal/backend"
	"varco.dev/internal/backend/discovery"
	"varco.dev/internal/backend/health"
	"varco.dev/internal/relay/loop"
)

const (
	// steerPeriod is how often connections are looked at. What is found out about backends does not wait for it.
	steerPeriod = 250 * time.Millisecond
	// quietTime is without a byte for how long a connection counts as idle, and is closed before others: no request is open, or
	// a watch on which nothing happens.
	quietTime = 5 * time.Second
	// settledTime is how long ago the backend must have said its last byte, after the client's, for a connection that is not
	// idle to be closed: what was asked is answered then, most likely. Less says nothing of a connection with many requests.
	settledTime = time.Second
	// listeningTime is how long the client must have been silent on a connection on which the backend speaks all the time: a
	// watch with many events. With more, clients of HTTP/2 that tell of their windows every 4 KiB would never be silent.
	listeningTime = 500 * time.Millisecond
	// leastAge is how old a connection must be to be closed: client-go lists all over again if a watch ends within a second.
	leastAge = 2 * time.Second
	// redPatience is how long a backend must have been red alone for its connections to be moved. All turn red within this time
	// if it is etcd that stalls (their check of it takes 2 s, ours is once a second), and then they are better left alone.
	redPatience = 5 * time.Second
)

// steer brings what is known about backends to those who choose and to the connections that there are, until the context
// ends.
func (lb *LB) steer(ctx context.Context) error {
	tick := time.NewTicker(steerPeriod)
	defer tick.Stop()
	pace := &pacer{}
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-lb.changed:
			lb.refresh()
		case <-tick.C:
			lb.steered.Store(time.Now().UnixNano())
			lb.refresh()
			lb.rebalance(pace, time.Now())
		}
	}
}

// wake has steer look at once.
func (lb *LB) wake() {
	select {
	case lb.changed <- struct{}{}:
	default: // it is going to
	}
}

// refresh takes over what was found and how it is. Backends that are found no more are checked for as long as they have
// connections.
func (lb *LB) refresh() {
	d, checker := lb.discovery.Load(), lb.checker.Load()
	if d == nil || checker == nil {
		return // not started yet
	}
	found, used := map[netip.AddrPort]discovery.Found{}, lb.used()
	for _, f := range d.Found() {
		found[f.Addr] = f
	}
	lb.check(checker, found, used)
	backends := backendsOf(found, used, checker.Verdicts(), lb.settings.Load().Zone)
	settled := time.Since(lb.started) > firstBackends
	if targets := targetsOf(backends, settled); len(targets) > 0 && !slices.Equal(targets, lb.targets) {
		lb.balancer.set(targets)
		if lb.targets == nil {
			close(lb.found)
		}
		lb.targets = targets
	}
	lb.tell(*lb.backends.Swap(&backends), backends)
	for _, b := range backends {
		if b.Cut {
			lb.end(b.Addr)
		}
	}
	if !slices.ContainsFunc(backends, Backend.hopeful) {
		d.Rescue()
	}
}

// use is what goes on with a backend.
type use struct {
	loop.Traffic               // in mode tcp
	requests     https.Traffic // in mode https
}

// used returns what goes on with all backends that have had something.
func (lb *LB) used() map[netip.AddrPort]use {
	out := map[netip.AddrPort]use{}
	for addr, t := range lb.relay.Traffic() {
		out[addr] = use{Traffic: t}
	}
	if lb.https != nil {
		for addr, t := range lb.https.Traffic() {
			out[addr] = use{out[addr].Traffic, t}
		}
	}
	return out
}

// check has all backends checked that were found, and for as long as something goes on with them also others; not those that have
// become own listeners, through which the check itself would be what goes on.
func (lb *LB) check(checker *health.Checker, found map[netip.AddrPort]discovery.Found, used map[netip.AddrPort]use) {
	check := slices.Collect(maps.Keys(found))
	for addr, u := range used {
		if _, known := found[addr]; !known && u.Sessions+u.requests.Requests > 0 && !lb.own(addr) {
			check = append(check, addr)
		}
	}
	slices.SortFunc(check, netip.AddrPort.Compare)
	if !slices.Equal(check, lb.checked) || checker != lb.checkedBy {
		checker.Set(check)
		lb.checked, lb.checkedBy = check, checker
	}
}

// end ends what goes on with a backend, so that clients come back elsewhere.
func (lb *LB) end(addr netip.AddrPort) {
	lb.closed.add(reasonDown, lb.relay.End(addr, reasonDown)) // which tells the log
	if lb.https == nil {
		return
	}
	if n := lb.https.End(addr); n > 0 {
		lb.closed.add(reasonDown, n)
		lb.log.Info("ended the requests of a backend that is down", "backend", addr, "requests", n)
	}
}

// Backend is what is known of a backend.
type Backend struct {
	Addr    netip.AddrPort
	Zone    string
	Source  string // where it was found; empty: it is none any more, but has connections
	Prefers bool   // it is in the balancer's own zone
	health.Verdict
	Traffic  loop.Traffic  // of mode tcp
	Requests https.Traffic // of mode https
}

// takes says whether new connections go to it when all is well.
func (b Backend) takes() bool { return b.Source != "" && (b.State == health.Up || b.Open) }

// hopeful says whether it may be an API server of this cluster: those of another one answer, too, where a node has moved.
func (b Backend) hopeful() bool {
	return b.Source != "" && b.State != health.Down && b.Last != health.Untrusted
}

// backendsOf puts together what is known, sorted by address.
func backendsOf(found map[netip.AddrPort]discovery.Found, used map[netip.AddrPort]use, verdicts []health.Verdict, zone string) (out []Backend) {
	for _, v := range verdicts {
		f, u := found[v.Addr], used[v.Addr]
		out = append(out, Backend{
			Addr: v.Addr, Zone: f.Zone, Source: f.Source, Prefers: zone != "" && f.Zone == zone, Verdict: v, Traffic: u.Traffic, Requests: u.requests,
		})
	}
	slices.SortFunc(out, func(a, b Backend) int { return a.Addr.Compare(b.Addr) })
	return out
}

// targetsOf are the backends to choose from. Those of which nothing is known yet go after those that are known to be up, but not at
// the start, when it is chance which one is known first.
func targetsOf(backends []Backend, settled bool) (out []backend.Target) {
	proven := settled && slices.ContainsFunc(backends, func(b Backend) bool { return b.takes() && b.Proven })
	for _, b := range backends {
		if b.Source == "" {
			continue
		}
		t := backend.Target{
			Addr: b.Addr, Preferred: b.Prefers,
			Draining: b.State == health.Draining && !b.Open || proven && !b.Proven && b.State == health.Up,
			Down:     b.State == health.Down && !b.Open,
		}
		if b.State == health.Up {
			t.Since = b.Since
		}
		out = append(out, t)
	}
	return out
}

// membersOf are the backends with what they have that can be moved. If any of the own zone takes connections, all others are far.
func membersOf(backends []Backend, now time.Time) (out []member) {
	near := slices.ContainsFunc(backends, func(b Backend) bool { return b.takes() && b.Prefers })
	for _, b := range backends {
		out = append(out, member{
			addr: b.Addr, sessions: b.Traffic.Sessions + b.Requests.Watches,
			taking:  b.takes() && (b.Prefers || !near),
			fresh:   now.Sub(b.Since) < backend.SlowStart || b.Open,
			leaving: b.Source == "" || !b.Open && (b.State == health.Down || b.State == health.Draining && now.Sub(b.Since) > redPatience),
			far:     b.takes() && !b.Prefers && near,
		})
	}
	return out
}

// rebalance closes connections that would be better off elsewhere.
func (lb *LB) rebalance(p *pacer, now time.Time) {
	r := lb.settings.Load().Rebalance
	p.spread, p.percent = float64(r.Spread)/100, float64(r.PercentPerSecond)
	if r.Disabled {
		p.percent = 0
	}
	for _, c := range p.plan(now, membersOf(*lb.backends.Load(), now)) {
		n := lb.shed(c.addr, c.most, settledTime)
		p.closed(c.reason, n)
		lb.closed.add(c.reason, n)
	}
}

// shed closes some connections of a backend, idle ones first, then those on which the backend's last word is so old, and ends
// watches in order, so that their clients come back elsewhere. It returns how many.
func (lb *LB) shed(addr netip.AddrPort, most int, settled time.Duration) int {
	n := lb.relay.Shed(loop.Shed{
		Backend: addr, Most: most, Age: leastAge, Quiet: quietTime, Settled: settled, Listening: listeningTime,
	})
	if lb.https != nil && n < most {
		n += lb.https.Shed(addr, most-n)
	}
	return n
}

// tell writes to the log which backends have come and gone; what becomes of them, the checks tell.
func (lb *LB) tell(old, now []Backend) {
	for _, b := range now {
		_, known := slices.BinarySearchFunc(old, b.Addr, func(a Backend, addr netip.AddrPort) int { return a.Addr.Compare(addr) })
		if !known {
			lb.log.Info("has a backend", "backend", b.Addr, "from", cmp.Or(b.Source, "earlier connections"), "zone", b.Zone)
		}
	}
	for _, b := range old {
		if !slices.ContainsFunc(now, func(a Backend) bool { return a.Addr == b.Addr }) {
			lb.log.Info("has lost a backend: it is found no more", "backend", b.Addr)
		}
	}
}
