package reconcile_test

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

func TestRepairReplacesSoon(t *testing.T) {
	p := &plane{}
	run(t, p, func(l *reconcile.Loop, start chan struct{}, _ chan error) {
		close(start)
		expect(t, p, "replace 0 ports")
		for range 5 {
			l.Repair("flush of our table")
		}
		pass(reconcile.DefaultFirstRepair - time.Millisecond)
		expect(t, p, "")
		pass(time.Millisecond)
		expect(t, p, "replace 0 ports")
		pass(reconcile.DefaultMaxRetry)
		expect(t, p, "")
	})
}

// TestRepairsOfAFightBecomeRare has another program undo each repair at once.
func TestRepairsOfAFightBecomeRare(t *testing.T) {
	p := &plane{}
	run(t, p, func(l *reconcile.Loop, start chan struct{}, _ chan error) {
		close(start)
		expect(t, p, "replace 0 ports")
		const minute = 60
		repairs := 0
		for range 10 * minute {
			l.Repair("again")
			pass(100 * time.Millisecond)
			synctest.Wait()
			repairs += strings.Count(p.take(), "replace")
		}
		if repairs < 3 || repairs > 12 {
			t.Errorf("%d repairs in a minute of fighting", repairs)
		}
		if told := strings.Count(p.log.String(), "repairing"); told > repairs+1 {
			t.Errorf("%d repairs, and %d messages that there will be one", repairs, told)
		}
		pass(reconcile.DefaultMaxRetry)
		pass(2*reconcile.DefaultMaxRetry + reconcile.DefaultCalm + time.Second)
		synctest.Wait()
		p.take()
		l.Repair("after a calm time")
		pass(reconcile.DefaultFirstRepair)
		expect(t, p, "replace 0 ports")
	})
}

// TestRepairsOfRareDamageAreSoon has damage that has nothing to do with the repair before it.
func TestRepairsOfRareDamageAreSoon(t *testing.T) {
	p := &plane{}
	run(t, p, func(l *reconcile.Loop, start chan struct{}, _ chan error) {
		close(start)
		expect(t, p, "replace 0 ports")
		for range 10 {
			l.Repair("flush")
			pass(reconcile.DefaultFirstRepair)
			expect(t, p, "replace 0 ports")
			pass(8 * time.Second)
		}
	})
}

// TestChangesGoOnBetweenRepairs applies a change while a repair waits.
func TestChangesGoOnBetweenRepairs(t *testing.T) {
	p := &plane{}
	run(t, p, func(l *reconcile.Loop, start chan struct{}, _ chan error) {
		close(start)
		expect(t, p, "replace 0 ports")
		l.Repair("flush")
		add(l, "1")
		pass(reconcile.DefaultMaxWait)
		expect(t, p, "update 1 ports")
		pass(reconcile.DefaultFirstRepair)
		expect(t, p, "replace 1 ports")
	})
}

func TestAppliedTellsEachSuccess(t *testing.T) {
	p := &plane{}
	run(t, p, func(l *reconcile.Loop, start chan struct{}, _ chan error) {
		add(l, "1")
		close(start)
		synctest.Wait()
		add(l, "2", "3")
		pass(reconcile.DefaultMaxWait)
		synctest.Wait()
		p.fail = []error{errors.New("no")}
		add(l, "4")
		pass(reconcile.DefaultMaxWait)
		synctest.Wait()
		var got []string
		for _, a := range p.applied {
			got = append(got, fmt.Sprintf("%d ports, full %t", len(a.changes.Ports), a.full))
		}
		if diff := cmp.Diff([]string{"1 ports, full true", "2 ports, full false", "4 ports, full true"}, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
	})
}

// TestTriggersSurviveFailure sets a slice while nothing can be applied: how long that took is to be told in the end.
func TestTriggersSurviveFailure(t *testing.T) {
	p := &plane{fail: slices.Repeat([]error{errors.New("no")}, 3)}
	run(t, p, func(l *reconcile.Loop, start chan struct{}, _ chan error) {
		at, name := time.Now(), service.Name{Namespace: "x", Name: "1"}
		l.Update(func(table *service.Table) {
			table.SetSlice(&service.Slice{Name: name, Service: name, Triggered: at})
		})
		close(start)
		pass(time.Minute)
		add(l, "1")
		pass(time.Minute)
		synctest.Wait()
		var got []time.Time
		for _, a := range p.applied {
			got = append(got, a.changes.Triggers...)
		}
		if len(got) != 1 || !got[0].Equal(at) {
			t.Errorf("got triggers %v, want %v once", got, at)
		}
	})
}

func TestStatusOfPorts(t *testing.T) {
	p := &plane{}
	run(t, p, func(l *reconcile.Loop, start chan struct{}, _ chan error) {
		began := time.Now()
		add(l, "1", "2")
		close(start)
		synctest.Wait()
		state := func(name string) string {
			key := service.Key{Service: service.Name{Namespace: "x", Name: name}, Protocol: service.TCP, Family: service.IPv4}
			s, ok := l.Status()[key]
			if !ok {
				return "none"
			}
			return fmt.Sprintf("%s at %s, error %v", s.Phase, s.Since.Sub(began), s.Err)
		}
		want := func(name, want string) {
			t.Helper()
			synctest.Wait()
			if got := state(name); got != want {
				t.Errorf("Service %s: got %q, want %q", name, got, want)
			}
		}
		want("1", "done at 0s, error <nil>")
		pass(time.Second)

		p.hold = make(chan struct{})
		add(l, "3")
		pass(reconcile.DefaultMaxWait)
		want("3", "pending at 1s, error <nil>")
		if h := l.Health(); h.PendingFrom.Sub(began) != time.Second {
			t.Errorf("while the change is being applied: %+v", h)
		}
		p.fail = slices.Repeat([]error{errors.New("no")}, 2)
		close(p.hold)
		want("3", "error at 1s, error no")
		want("2", "done at 0s, error <nil>")
		pass(reconcile.DefaultMinRetry)
		want("3", fmt.Sprintf("done at %s, error <nil>", time.Second+reconcile.DefaultMaxWait+reconcile.DefaultMinRetry))

		l.Update(func(table *service.Table) { table.DeleteService(service.Name{Namespace: "x", Name: "3"}) })
		pass(reconcile.DefaultMaxWait)
		want("3", "none")
	})
}
