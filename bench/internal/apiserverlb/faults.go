package apiserverlb

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net/http"
	"slices"
	"syscall"
	"time"

	"varco.dev/bench/internal/report"
)

// Servers that come to harm. The first is spared: etcd is on its machine.
const (
	hungServer = 1
	cutServer  = 2
)

// siege is all balancers in front of one cluster, each with its own clients: what happens to an API server happens to all of
// them at the same time.
type siege struct {
	*Bench
	*cluster
	fleets []*fleet
}

// faults measures some groups in a new cluster.
func (b *Bench) faults(ctx context.Context, round int, groups []string) (err error) {
	b.log.Info("start three API servers and balancers", "round", round, "of", b.plan.Rounds)
	c, err := b.openCluster(ctx, b.dir)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, c.close()) }()
	names := slices.DeleteFunc(slices.Clone(b.names), onlySpeed)
	runs, stop, err := b.start(ctx, names, &c.place, round)
	defer stop()
	if err != nil {
		return err
	}
	s := &siege{Bench: b, cluster: c}
	defer s.end()
	for _, r := range runs {
		s.fleets = append(s.fleets, launch(ctx, r, b.plan.Watches, func() *http.Client { return c.client(r.at) }))
	}
	return s.all(ctx, round, groups)
}

func (s *siege) end() {
	for _, f := range s.fleets {
		f.close()
	}
}

func (s *siege) all(ctx context.Context, round int, groups []string) error {
	steps := map[string]func(context.Context) error{
		groupHung: s.hung, groupCut: s.cutOff, groupRoll: s.roll, groupRed: s.red,
	}
	for _, g := range groups {
		if err := s.calm(ctx); err != nil {
			return fmt.Errorf("before %s: %w", g, err)
		}
		s.log.Info("measure", "round", round, "what", g)
		if err := steps[g](ctx); err != nil {
			return errors.Join(fmt.Errorf("%s: %w", g, err), s.check())
		}
	}
	return nil
}

// check says which balancer has ended.
func (s *siege) check() (err error) {
	for _, f := range s.fleets {
		err = errors.Join(err, f.check())
	}
	return err
}

// calm returns when all API servers are ready and all watches are open, and some time has gone by since.
func (s *siege) calm(ctx context.Context) error {
	for _, a := range s.servers {
		client := s.client(a.At)
		defer client.CloseIdleConnections()
		err := await(ctx, a.process.Check, func() error {
			ctx, cancel := context.WithTimeout(ctx, time.Second)
			defer cancel()
			_, err := get(ctx, client, "https://kubernetes/readyz")
			return err
		})
		if err != nil {
			return err
		}
	}
	for _, f := range s.fleets {
		if err := await(ctx, f.check, f.steady); err != nil {
			return err
		}
	}
	return sleep(ctx, s.plan.Settle)
}

func (s *siege) hung(ctx context.Context) error {
	return s.fault(ctx, groupHung, hungServer,
		func() error { return s.signal(hungServer, syscall.SIGSTOP) }, func() error { return s.signal(hungServer, syscall.SIGCONT) })
}

func (s *siege) cutOff(ctx context.Context) error {
	return s.fault(ctx, groupCut, cutServer, func() error { return s.cut(cutServer) }, func() error { return s.mend(cutServer) })
}

// during does harm for some time while new connections are made, and returns when it was done. What is measured must be
// read before the harm is undone, and is by then.
func (s *siege) during(ctx context.Context, length time.Duration, harm, undo func() error, read func(since, until time.Time)) (err error) {
	for _, f := range s.fleets {
		defer f.probe(ctx, s.plan.Probes)()
	}
	began := time.Now()
	if err := harm(); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, undo()) }()
	if err := sleep(ctx, length); err != nil {
		return err
	}
	read(began, time.Now())
	return nil
}

// fault measures what becomes of the clients when a server comes to harm.
func (s *siege) fault(ctx context.Context, name string, server int, harm, undo func() error) error {
	return s.during(ctx, s.plan.FaultTime, harm, undo, func(since, until time.Time) {
		for _, f := range s.fleets {
			j := f.seen()
			clients, last, ok := j.moved(server, since)
			seconds := last.Seconds()
			if !ok {
				seconds = math.Inf(1)
			}
			if clients > 0 {
				s.add(f.run, one, when(name, moved), seconds)
			} else {
				s.log.Warn("no watch was at the API server that came to harm", "through", f.name)
			}
			percent, lasted := failures(j.probes, since, until.Add(-patience))
			s.add(f.run, one, when(name, failed), percent)
			s.add(f.run, one, when(name, failedFor), lasted.Seconds())
			s.tell(f, j.probes, since, until)
		}
	})
}

// tell logs the first that has failed.
func (s *siege) tell(f *fleet, list []answer, since, until time.Time) {
	for _, a := range list {
		if a.err != nil && a.began.After(since) && a.began.Before(until) {
			s.log.Debug("failed", "through", f.name, "after", a.began.Sub(since), "took", a.took, "why", a.err)
			return
		}
	}
}

// redAfter is when no API server is ready any more after etcd has stopped: it is asked with a limit of 2 s, and a balancer
// wants to see that twice.
const redAfter = 5 * time.Second

// red measures whether API servers can be reached of which none is ready.
func (s *siege) red(ctx context.Context) error {
	pid := int(s.etcd)
	harm, undo := func() error { return syscall.Kill(pid, syscall.SIGSTOP) }, func() error { return syscall.Kill(pid, syscall.SIGCONT) }
	return s.during(ctx, s.plan.RedTime, harm, undo, func(since, until time.Time) {
		for _, f := range s.fleets {
			j := f.seen()
			percent, _ := failures(j.probes, since.Add(redAfter), until.Add(-patience))
			s.add(f.run, one, redFailed, percent)
			s.add(f.run, one, redEnded, 100*float64(j.clientsEnded(f.watches, since, until))/float64(f.watches))
			s.tell(f, j.probes, since.Add(redAfter), until)
		}
	})
}

// roll restarts all API servers, one after the other, and then looks how connections spread.
func (s *siege) roll(ctx context.Context) error {
	for _, f := range s.fleets {
		defer f.request(ctx, s.plan.Requests)()
	}
	if err := sleep(ctx, time.Second); err != nil { // for all connections to be open
		return err
	}
	began := time.Now()
	for i := range s.servers {
		if i > 0 {
			if err := sleep(ctx, s.plan.Settle); err != nil {
				return err
			}
		}
		if err := s.restart(ctx, i, s.plan.Delay); err != nil {
			return err
		}
		s.log.Debug("restarted", "API server", i, "after", time.Since(began))
	}
	ready := time.Now()
	if err := s.spread(ctx, ready); err != nil {
		return err
	}
	for _, f := range s.fleets {
		j := f.seen()
		s.rolled(f, j.requests, began, ready)
	}
	return nil
}

func (s *siege) rolled(f *fleet, requests []answer, since, until time.Time) {
	var count, bad, final int
	var longest time.Duration
	for _, a := range requests {
		switch {
		case a.began.Before(since) || a.began.After(until):
			continue
		case a.err != nil:
			bad++
			if !asksAgain(a.err) {
				final++
			}
		default:
			longest = max(longest, a.took)
		}
		count++
	}
	s.add(f.run, one, rollFailed, float64(bad))
	s.add(f.run, one, rollFinal, float64(final))
	s.add(f.run, one, rollCount, float64(count))
	s.add(f.run, one, rollLongest, report.Millis(longest))
	s.tell(f, requests, since, until)
}

// Of an even spread.
const (
	// evenPercent is how far apart servers may be, of the mean.
	evenPercent = 20
	// lookEvery is how often it is looked at.
	lookEvery = 250 * time.Millisecond
	// closingsIn is how long the rate of closed connections is taken over.
	closingsIn = 10 * time.Second
)

// spread waits until the connections of the first balancer are spread over all servers, and looks at the others meanwhile.
func (s *siege) spread(ctx context.Context, since time.Time) error {
	even := make([]time.Duration, len(s.fleets))
	for {
		now := time.Now()
		for i, f := range s.fleets {
			if even[i] == 0 && apart(f.seen().where(now), len(s.servers)) <= evenPercent {
				even[i] = now.Sub(since)
			}
		}
		if passed := now.Sub(since); passed > s.plan.SpreadMost || passed > s.plan.SpreadLeast && even[0] > 0 {
			break
		}
		if err := errors.Join(sleep(ctx, lookEvery), s.check()); err != nil {
			return err
		}
	}
	until := time.Now()
	for i, f := range s.fleets {
		seconds := even[i].Seconds()
		if seconds == 0 {
			seconds = math.Inf(1)
		}
		j := f.seen()
		s.add(f.run, one, spreadTime, seconds)
		s.add(f.run, one, spreadEnds, 100*highest(j.ended(since, until), closingsIn)/float64(j.clients))
		s.add(f.run, one, spreadLast, apart(j.where(until), len(s.servers)))
	}
	return nil
}
