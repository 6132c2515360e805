package apiserverlb

import (
	"math"
	"net/netip"
	"slices"
	"time"
)

// drainPercent is how many of all connections may be closed in a second because their backend is red while others are not.
// Requests are likely to fail there, so it is faster than evening out, which can wait.
const drainPercent = 10

// member is a backend as rebalancing sees it.
type member struct {
	addr     netip.AddrPort
	sessions int
	taking   bool // new connections go to it
	fresh    bool // but not as many as it could: it has come back just now, or it is red as all others are
	leaving  bool // it shall have none: it is red while others are not, or it is no backend any more
	far      bool // it is fine, but new connections go to nearer ones
}

// closing is how many connections of a backend may be closed now.
type closing struct {
	addr   netip.AddrPort
	most   int
	reason string
}

// Reasons why connections are closed.
const (
	reasonDown     = "down"        // the backend is: at once
	reasonDraining = "draining"    // the backend is red while others are not
	reasonSpread   = "rebalancing" // others have fewer
	reasonEnding   = "ending"      // the balancer is
)

// movedReasons are all of them.
func movedReasons() []string { return []string{reasonDown, reasonDraining, reasonSpread, reasonEnding} }

// pacer plans which connections are to be closed so that their clients come back elsewhere. It only plans: what was closed is
// told to it. Fields are set before its first use; a pacer belongs to one goroutine.
type pacer struct {
	spread  float64 // how far apart backends may be, largest from smallest, as a share of their mean
	percent float64 // of all connections that may be closed in a second to even them out; 0: none

	last   time.Time
	even   allowance
	drain  allowance
	moving bool // too far apart, and not even yet
}

// allowance is how many connections may be closed: it grows with time, and is not saved up.
type allowance float64

func (a *allowance) grow(total int, percent, seconds float64) {
	if percent == 0 {
		*a = 0
		return
	}
	each := float64(total) * percent / 100
	*a = min(*a+allowance(each*seconds), allowance(max(each, 1)))
}

// plan returns what may be closed by now.
func (p *pacer) plan(now time.Time, members []member) []closing {
	total, taking := 0, []member{}
	for _, m := range members {
		total += m.sessions
		if m.taking {
			taking = append(taking, m)
		}
	}
	seconds := 0.0
	if !p.last.IsZero() {
		seconds = now.Sub(p.last).Seconds()
	}
	p.last = now
	p.even.grow(total, p.percent, seconds)
	p.drain.grow(total, drainPercent, seconds)
	if len(taking) == 0 {
		return nil // there is nowhere better to go
	}
	out := p.leaving(members)
	if slices.ContainsFunc(taking, func(m member) bool { return m.fresh }) {
		return out // who is closed while one of them is fresh comes back where it was
	}
	far, left := p.stray(members)
	return slices.Concat(out, far, p.uneven(taking, left))
}

// leaving lets connections of backends go that shall have none.
func (p *pacer) leaving(members []member) (out []closing) {
	left := int(p.drain)
	for _, m := range members {
		if n := min(m.sessions, left); m.leaving && n > 0 {
			out = append(out, closing{m.addr, n, reasonDraining})
			left -= n
		}
	}
	return out
}

// stray lets connections of far backends go, and returns how many others may be closed.
func (p *pacer) stray(members []member) (out []closing, left int) {
	left = int(p.even)
	for _, m := range members {
		if n := min(m.sessions, left); m.far && n > 0 {
			out = append(out, closing{m.addr, n, reasonSpread})
			left -= n
		}
	}
	return out, left
}

// uneven lets connections of backends go that have more than their share, those of the fullest first.
func (p *pacer) uneven(taking []member, left int) (out []closing) {
	sum := 0
	for _, m := range taking {
		sum += m.sessions
	}
	mean := float64(sum) / float64(len(taking))
	more := func(a, b member) int { return a.sessions - b.sessions }
	apart := slices.MaxFunc(taking, more).sessions - slices.MinFunc(taking, more).sessions
	switch {
	case apart < 2, float64(apart) <= p.spread/2*mean:
		p.moving = false
	case float64(apart) > p.spread*mean:
		p.moving = true
	}
	if !p.moving {
		return nil
	}
	closings, share := map[netip.AddrPort]int{}, int(math.Ceil(mean))
	for ; left > 0; left-- {
		m := fullest(taking)
		if m.sessions <= share {
			break
		}
		m.sessions--
		closings[m.addr]++
	}
	for _, m := range taking {
		if n := closings[m.addr]; n > 0 {
			out = append(out, closing{m.addr, n, reasonSpread})
		}
	}
	return out
}

func fullest(members []member) *member {
	most := &members[0]
	for i := range members {
		if members[i].sessions > most.sessions {
			most = &members[i]
		}
	}
	return most
}

// closed tells how many connections were closed of those that were planned.
func (p *pacer) closed(reason string, n int) {
	if reason == reasonDraining {
		p.drain -= allowance(n)
	} else {
		p.even -= allowance(n)
	}
}
