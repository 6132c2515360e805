package health

import (
	"maps"
	"net/netip"
	"slices"
	"time"
)

// Verdicts returns one per backend, sorted by address.
func (m *Machine) Verdicts() []Verdict {
	out := make([]Verdict, 0, len(m.backends))
	for _, addr := range slices.SortedFunc(maps.Keys(m.backends), netip.AddrPort.Compare) {
		r := m.backends[addr]
		out = append(out, Verdict{
			Addr: addr, State: r.state, Since: r.since, Proven: r.proven, Cut: r.cut, Last: r.last, Reason: r.reason, Latency: r.latency,
		})
	}
	m.failOpen(out)
	return out
}

// settle decides whose sessions are cut now, and tells whether that has changed.
func (m *Machine) settle() (changed bool) {
	if !m.any(nil, func(r *record) bool { return r.dead || r.cut }) {
		return false
	}
	all := m.Verdicts()
	shelter, prompt := slices.ContainsFunc(all, refuge), time.Time{} // the newest prompt answer of one
	for _, v := range all {
		if r := m.backends[v.Addr]; refuge(v) && r.prompt && r.heard.After(prompt) {
			prompt = r.heard
		}
	}
	for _, v := range all {
		r := m.backends[v.Addr]
		switch stands := r.dead && r.state == Down && shelter; {
		case r.cut && !stands:
			r.cut, changed = false, true
		case !r.cut && stands && !prompt.Before(r.failing.Add(-m.policy.Recent)):
			r.cut, changed = true, true
		}
	}
	return changed
}

// refuge tells whether a backend is known to be a better place than one whose sessions are dead.
func refuge(v Verdict) bool { return v.State == Up && v.Proven || v.State == Draining && v.Open }

// failOpen has the verdicts say who is to be used although it is not Up.
func (m *Machine) failOpen(all []Verdict) {
	ups, reachable := 0, 0
	for _, v := range all {
		if v.State != Down {
			reachable++
		}
		if v.State == Up {
			ups++
		}
	}
	together := m.together(reachable)
	for i := range all {
		v := &all[i]
		switch v.State {
		case Down:
			v.Open = reachable == 0
		case Draining:
			v.Open = ups == 0 || together[v.Addr]
		}
	}
}

// together returns the backends that turned red within a window of each other, if they are more than half of those that are
// reachable.
func (m *Machine) together(reachable int) map[netip.AddrPort]bool {
	var fell []netip.AddrPort
	for addr, r := range m.backends {
		if r.state == Draining && !r.fell.IsZero() {
			fell = append(fell, addr)
		}
	}
	at := func(i int) time.Time { return m.backends[fell[i]].fell }
	slices.SortFunc(fell, func(a, b netip.AddrPort) int { return m.backends[a].fell.Compare(m.backends[b].fell) })
	out := map[netip.AddrPort]bool{}
	for first, last := 0, 0; last < len(fell); last++ {
		for at(last).Sub(at(first)) > m.policy.Window {
			first++
		}
		if 2*(last-first+1) > reachable {
			for _, addr := range fell[first : last+1] {
				out[addr] = true
			}
		}
	}
	return out
}
