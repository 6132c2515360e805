package kubeproxy_test

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"varco.dev/internal/kubeproxy/nft"
)

// perform has a play change the API server's objects until the context ends.
func (s *sole) perform(ctx context.Context, r play, pause time.Duration) {
	for ctx.Err() == nil {
		s.act(r)
		select {
		case <-ctx.Done():
		case <-time.After(pause):
		}
	}
}

// act changes one object at the API server.
func (s *sole) act(r play) {
	if obj, gone := r.next(); gone {
		s.api.delete(obj)
	} else {
		s.api.set(obj)
	}
}

// whole returns what is wrong with what the kernel holds at one moment, which must be the state before some transaction or
// after it: all that a frontend leads to is there.
func whole(c nft.Content) error {
	there := map[string]bool{}
	for _, e := range c.Elements {
		key, _, _ := strings.Cut(e.String(), " : ")
		there[key] = true
	}
	classes := map[nft.Class]bool{}
	for _, class := range c.Classes {
		classes[class] = true
	}
	for _, e := range c.Elements {
		class, points := e.Class()
		if !points {
			continue
		}
		if !classes[class] {
			return fmt.Errorf("%s: there is no such class", e)
		}
		family, _, _ := strings.Cut(e.String(), " ")
		id := e.String()[strings.LastIndex(e.String(), " ")+1:]
		for slot := range class.Backends {
			for _, set := range []nft.Set{nft.Endpoints, nft.Tokens} {
				if key := fmt.Sprintf("%s %s %s . %d", family, set, id, slot); !there[key] && (set == nft.Endpoints || class.Affinity > 0) {
					return fmt.Errorf("%s: there is no %s", e, key)
				}
			}
		}
	}
	return nil
}

// child starts this program again as a proxy, in the namespace.
func (s *sole) child(log *logBook) *exec.Cmd {
	s.t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childAPI+"="+s.api.http.URL)
	cmd.Stdout, cmd.Stderr = log, log
	s.must(s.ns.Start(cmd))
	return cmd
}

// kill ends a process with no word.
func (s *sole) kill(cmd *exec.Cmd) {
	s.t.Helper()
	s.must(cmd.Process.Kill())
	var killed *exec.ExitError
	if err := cmd.Wait(); !errors.As(err, &killed) || killed.Exited() {
		s.t.Errorf("the proxy ended by itself: %v", err)
	}
}

// mustBeWhole fails unless what the kernel holds now is. While a transaction goes on nobody knows, and the kernel counts it
// a moment before it shows what it did: so only what is found again and again counts.
func (s *sole) mustBeWhole(round int) {
	s.t.Helper()
	before := s.generation()
	var err error
	for range 3 {
		var c nft.Content
		c, err = s.look.Read(s.t.Context())
		if err == nil && !c.Sound {
			err = errors.New("the tables are not sound")
		}
		if err == nil {
			err = whole(c)
		}
		if err == nil || s.generation() != before {
			return
		}
	}
	s.t.Errorf("round %d: %v", round, err)
}

// TestKilledAtAnyMoment kills proxies at random moments while objects change, and starts others. Whatever each leaves
// behind is whole, and leads to no place that is not there; the last one makes of it what the objects ask for.
func TestKilledAtAnyMoment(t *testing.T) {
	s := newSole(t, true)
	ctx, cancel := context.WithCancel(t.Context())
	var playing sync.WaitGroup
	playing.Go(func() { s.perform(ctx, newPlay(1), 2*time.Millisecond) })
	defer playing.Wait()
	defer cancel()
	r, log := rand.New(rand.NewPCG(1, 1)), newLogBook()
	for round := range 20 {
		began, transactions := s.generation(), uint32(1+r.IntN(8)*r.IntN(8))
		if round == 0 {
			transactions += 3 // so that there are tables
		}
		cmd := s.child(log)
		for deadline := time.Now().Add(30 * time.Second); s.generation()-began < transactions; {
			if time.Now().After(deadline) {
				text, _ := log.all()
				t.Fatalf("round %d: %d transactions, want %d\n%s", round, s.generation()-began, transactions, text)
			}
			if round > 0 && r.IntN(4) == 0 { // also while it runs
				s.mustBeWhole(round)
			}
		}
		if r.IntN(2) == 0 {
			time.Sleep(time.Duration(r.IntN(1000)) * time.Microsecond) // to meet it at any point of its work
		}
		s.kill(cmd)
		s.mustBeWhole(round)
	}
	cmd := s.child(log)
	defer s.kill(cmd)
	cancel()
	playing.Wait()
	s.expect(20 * time.Second)
}

// TestRefusedTransactions has the kernel refuse one transaction in ten, and lose its answer to as many, while objects
// change: in the end all is as the objects ask for.
func TestRefusedTransactions(t *testing.T) {
	s := newSole(t, false)
	faults := rand.New(rand.NewPCG(3, 3)) // only the loop's goroutine uses it
	oneInTen := func() error {
		if faults.IntN(10) == 0 {
			return fmt.Errorf("on purpose: %w", unix.ENOBUFS)
		}
		return nil
	}
	r := s.run(func(k *watchedKernel) { k.before, k.after = oneInTen, oneInTen })
	defer r.stop()
	p := newPlay(2)
	for round := range 6 {
		for range 60 {
			s.act(p)
			time.Sleep(time.Duration(p.IntN(2000)) * time.Microsecond) // so that transactions have more or less in them
			s.mustBeWhole(round)
		}
		s.mustBeWhole(round)
		s.expect(20 * time.Second)
	}
	if text, _ := r.log.all(); !strings.Contains(text, "cannot apply Services, trying again") {
		t.Error("no failure is logged")
	}
	r.proxyIsWell(t, "")
}

// TestTwoProxies has two proxies on one node, which is a mistake of its administrator. They agree, and they leave each
// other's work alone once it is done; and no connection is lost over it.
func TestTwoProxies(t *testing.T) {
	s := newSole(t, false)
	s.api.set(serviceAt("one", "10.96.200.1"), sliceOf("one", portOfA, soleAddr4))
	r1 := s.run()
	defer r1.stop()
	s.served(r1, "10.96.200.1", "a")
	r2 := s.run()
	defer r2.stop()
	const mostReplaced, mostCommits = 10, 300 // of 60 changes
	p := newPlay(4)
	asked, failed := s.during("10.96.200.1", func() {
		for range 3 {
			for range 20 {
				s.act(p)
				time.Sleep(time.Duration(p.IntN(3000)) * time.Microsecond) // so that both meet different parts of it
			}
			s.expect(20 * time.Second)
		}
	})
	if asked < 10 || failed > 0 {
		t.Errorf("%d of %d connections failed", failed, asked)
	}
	s.quiet(time.Second)
	s.expect(0)
	// The first one makes the tables. Only if both write at the same moment again and again are they made anew.
	if n := r1.kernel.replaced.Load() + r2.kernel.replaced.Load(); n > mostReplaced {
		t.Errorf("the tables were made %d times", n)
	}
	if n := r1.kernel.commits.Load() + r2.kernel.commits.Load(); n > mostCommits {
		t.Errorf("%d transactions", n)
	}
	text, _ := r1.log.all()
	more, _ := r2.log.all()
	if !strings.Contains(text+more, "another program has changed the tables") {
		t.Error("no log tells of the other one")
	}
	r1.proxyIsWell(t, "varco-kube-proxy")
	r2.proxyIsWell(t, "varco-kube-proxy")
}

// quiet fails unless nftables stop changing, for so long.
func (s *sole) quiet(calm time.Duration) {
	s.t.Helper()
	last, since := s.generation(), time.Now()
	eventually(s.t, 60*time.Second, func() string {
		if now := s.generation(); now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) < calm {
			return "they still change"
		}
		return ""
	})
}
