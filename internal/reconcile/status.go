package reconcile

import (
	"time"

	"varco.dev/internal/service"
)

// Phase is how far the data plane is with a Port.
type Phase uint8

// The phases.
const (
	Pending Phase = iota // what the API asks for waits to be applied, or is being applied
	Done                 // the data plane has it
	Failed               // the last attempt to apply it failed; what it was before is still there, and there is another attempt
)

// String returns the phase as a word.
func (p Phase) String() string { return [...]string{"pending", "done", "error"}[p] }

// State of a Port.
type State struct {
	Phase Phase
	Since time.Time // when it began to wait, or was applied
	Err   error     // of the last attempt; nil unless Failed
}

// ledger remembers when Ports were applied. Those that the first application of the whole state had are not in it: they
// share one time, because most Ports of a cluster change rarely.
type ledger struct {
	waiting map[service.Key]waiting   // taken from the table, but not applied
	applied map[service.Key]time.Time // after the first time
	first   time.Time                 // when the whole state was first applied
}

type waiting struct {
	since time.Time
	gone  bool // the Port is to go
}

func newLedger() ledger {
	return ledger{waiting: map[service.Key]waiting{}, applied: map[service.Key]time.Time{}}
}

// take enters changes that are about to be applied and have waited since then.
func (g *ledger) take(changes []service.Change, since time.Time) {
	for _, c := range changes {
		w, ok := g.waiting[c.Key()]
		if !ok {
			w.since = since
		}
		w.gone = c.New == nil
		g.waiting[c.Key()] = w
	}
}

// settle enters that all that was taken is applied.
func (g *ledger) settle(now time.Time) {
	first := g.first.IsZero()
	if first {
		g.first = now
	}
	for key, w := range g.waiting {
		switch {
		case w.gone:
			delete(g.applied, key)
		case !first:
			g.applied[key] = now
		}
	}
	clear(g.waiting)
}

func (g *ledger) state(key service.Key, err error) State {
	w, waits := g.waiting[key]
	switch {
	case waits && err != nil:
		return State{Failed, w.since, err}
	case waits:
		return State{Pending, w.since, nil}
	}
	if at, ok := g.applied[key]; ok {
		return State{Done, at, nil}
	}
	return State{Done, g.first, nil}
}

// Status returns the state of each Port that there is, or that is to go. Its cost grows with the number of Ports. It is
// safe for concurrent use.
func (l *Loop) Status() map[service.Key]State {
	l.mu.Lock()
	defer l.mu.Unlock()
	ports := l.table.All().Ports
	all := make(map[service.Key]State, len(ports)+len(l.ledger.waiting))
	for _, p := range ports {
		all[p.Key()] = l.ledger.state(p.Key(), l.health.Err)
	}
	for key := range l.ledger.waiting {
		all[key] = l.ledger.state(key, l.health.Err)
	}
	return all
}
