package discovery

import (
	"net/netip"
	"slices"
	"time"
)

// take notes an answer. One that is empty or failed leaves what was known.
func (d *Discovery) take(a answer) {
	addrs, left, err := a.addrs, 0, a.err
	if err == nil {
		addrs, left, err = d.clean(addrs)
	}
	d.logTurn(a.from, err)
	d.mu.Lock()
	if a.from.err = err; err == nil {
		a.from.broken = a.from.broken && slices.Equal(a.from.addrs, addrs)
		a.from.addrs, a.from.left, a.from.answered, a.from.at = addrs, left, true, time.Now()
	}
	d.mu.Unlock()
	if err == nil {
		d.keep()
	}
}

// logTurn says when a source begins to fail and when it is back; each single failure is nobody's news.
func (d *Discovery) logTurn(s *source, err error) {
	switch {
	case err != nil && s.err == nil:
		d.config.Log.Warn("a source names no API servers, those it named last count on", "source", s.name, "known", len(s.addrs), "error", err)
	case err != nil:
		d.config.Log.Debug("a source still names no API servers", "source", s.name, "error", err)
	case s.err != nil:
		d.config.Log.Info("a source names API servers again", "source", s.name)
	}
}

// logOwn says that the configuration lists the own listeners.
func (d *Discovery) logOwn() {
	for _, f := range d.static {
		if d.own(f.Addr) {
			d.config.Log.Warn("leaves out an API server of the configuration, since an own listener has its address", "address", f.Addr)
		}
	}
}

// distrust lets the seeds count beside what the EndpointSlices said.
func (d *Discovery) distrust() {
	if d.slices != nil && d.slices.answered && !d.slices.broken {
		d.slices.broken = true
		d.config.Log.Warn("no API server works that the EndpointSlices name, so those of the configuration count too")
	}
}

// merge returns what counts now, sorted by address, each address once, and how many were left out as too many.
func (d *Discovery) merge() (found []Found, left int) {
	all, left := d.counting()
	zones := d.zones()
	seen := make(map[netip.AddrPort]bool, len(all))
	for _, f := range all {
		switch {
		case seen[f.Addr] || d.own(f.Addr): // listeners may have been opened since it was found
			continue
		case len(found) == MaxTargets:
			left++
		default:
			f.Zone = zones[f.Addr]
			found = append(found, f)
		}
		seen[f.Addr] = true
	}
	slices.SortFunc(found, func(f, g Found) int { return f.Addr.Compare(g.Addr) })
	return found, left
}

// counting returns the addresses of all sources that count, the most trusted first, and how many their answers left out.
func (d *Discovery) counting() (all []Found, left int) {
	if d.slices == nil || !d.slices.answered || d.slices.broken {
		all = slices.Clone(d.static)
		for _, s := range d.names {
			all = append(all, s.found()...)
			left += s.left
		}
	}
	if d.slices != nil {
		all = append(all, d.slices.found()...)
		left += d.slices.left
	}
	return all, left
}

func (s *source) found() []Found {
	name := s.name
	if !s.answered {
		name = sourceCache
	}
	out := make([]Found, len(s.addrs))
	for i, a := range s.addrs {
		out[i] = Found{Addr: a, Source: name}
	}
	return out
}

// zones returns the zones that the configuration gives to addresses, and to names for what they stand for. The first counts.
func (d *Discovery) zones() map[netip.AddrPort]string {
	zones := map[netip.AddrPort]string{}
	add := func(a netip.AddrPort, zone string) {
		if zones[a] == "" {
			zones[a] = zone
		}
	}
	for _, f := range d.static {
		add(f.Addr, f.Zone)
	}
	for _, s := range d.names {
		for _, a := range s.addrs {
			add(a, s.zone)
		}
	}
	return zones
}

// inherit takes over what another discovery was told by sources that this one has too.
func (d *Discovery) inherit(from *Discovery) {
	from.mu.Lock()
	defer from.mu.Unlock()
	for _, s := range d.sources() {
		for _, old := range from.sources() {
			if s.key == old.key {
				s.addrs, s.left, s.answered, s.at, s.err, s.broken = old.addrs, old.left, old.answered, old.at, old.err, old.broken
			}
		}
	}
}

// Source is what is known of one source, for people.
type Source struct {
	Name     string           // as in Found
	Addrs    []netip.AddrPort // what it said last, sorted; empty: nothing yet
	Answered time.Time        // when it said so; zero: it has not answered since the start, and Addrs is from the cache
	Err      error            // why its last answer does not count; nil: it does
}

// Sources returns all sources but the addresses of the configuration. It is safe for concurrent use.
func (d *Discovery) Sources() []Source {
	d.mu.Lock()
	defer d.mu.Unlock()
	var out []Source
	for _, s := range d.sources() {
		out = append(out, Source{Name: s.name, Addrs: slices.Clone(s.addrs), Answered: s.at, Err: s.err})
	}
	return out
}
