// Package listeners keeps listeners open at the places that are wanted, and tries again where one cannot be opened.
package listeners

import (
	"context"
	"errors"
	"maps"
	"time"
)

// Pauses between attempts to open what could not be opened.
const (
	minRetry = time.Second // before the first one; it doubles
	maxRetry = 30 * time.Second
)

var errTooMany = errors.New("there are too many listeners on this node")

// Listener is an open one.
type Listener interface {
	// Close returns when the place is free: it may be wanted for another use next. It is called once.
	Close()
	// Ended tells whether it listens no more though nobody has closed it. It must not block.
	Ended() bool
}

// Keeper keeps listeners at places.
type Keeper[P comparable] struct {
	// Wanted returns the places to listen at; when there are too many, the first ones count. Required.
	Wanted func() []P
	// Changed tells that what is wanted has changed, or that a listener has ended. Required.
	Changed <-chan struct{}
	// Open opens a place. What it starts must end with Close. Required.
	Open func(ctx context.Context, place P) (Listener, error)
	// Failed is told when a place cannot be opened, once until it can. Required.
	Failed func(place P, err error)
	// Count is told how many are open, after each change. Optional.
	Count func(open int)
	// Most bounds the listeners. Required.
	Most int
}

// Run listens as wanted until the context ends; then it returns nil, and nothing listens any more.
func (k Keeper[P]) Run(ctx context.Context) error {
	if k.Count == nil {
		k.Count = func(int) {}
	}
	o := open[P]{keeper: k, running: map[P]Listener{}, failing: map[P]bool{}}
	defer o.closeAll()
	retry := minRetry
	for {
		var again <-chan time.Time
		if o.reconcile(ctx, k.Wanted()) {
			retry = minRetry
		} else {
			again = time.After(retry)
		}
		k.Count(len(o.running))
		select {
		case <-ctx.Done():
			return nil
		case <-again:
			retry = min(2*retry, maxRetry)
		case <-k.Changed:
		}
	}
}

// open are the listeners of one Run.
type open[P comparable] struct {
	keeper  Keeper[P]
	running map[P]Listener
	failing map[P]bool // could not be opened at the last attempt
}

// reconcile closes what is not wanted, opens the rest, and tells whether all could be opened. It may be repeated.
func (o *open[P]) reconcile(ctx context.Context, wanted []P) bool {
	is := make(map[P]bool, len(wanted))
	for _, p := range wanted {
		is[p] = true
	}
	for p, l := range o.running {
		if !is[p] || l.Ended() {
			l.Close()
			delete(o.running, p)
		}
	}
	maps.DeleteFunc(o.failing, func(p P, _ bool) bool { return !is[p] })
	ok := true
	for _, p := range wanted {
		if o.running[p] == nil && !o.open(ctx, p) {
			ok = false
		}
	}
	return ok
}

func (o *open[P]) open(ctx context.Context, p P) bool {
	err := errTooMany
	if len(o.running) < o.keeper.Most {
		var l Listener
		if l, err = o.keeper.Open(ctx, p); err == nil {
			o.running[p] = l
			delete(o.failing, p)
			return true
		}
	}
	if !o.failing[p] && ctx.Err() == nil {
		o.failing[p] = true
		o.keeper.Failed(p, err)
	}
	return false
}

func (o *open[P]) closeAll() {
	for _, l := range o.running {
		l.Close()
	}
	o.keeper.Count(0)
}
