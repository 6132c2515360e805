package apiload

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

func TestTally(t *testing.T) {
	begin := time.Now()
	at := func(d time.Duration, took time.Duration, err string) attempt { return attempt{begin.Add(d), took, err} }
	var l tally
	for _, a := range []attempt{
		at(-5*time.Second, time.Second, "before"),
		at(-time.Second, 3*time.Second, ""), // was under way
		at(time.Second, time.Second, "reset"),
		at(3*time.Second, time.Second, "reset"),
		at(2*time.Second, time.Second, ""),
	} {
		l.add(a)
	}
	l.broke()
	r := l.since(begin)
	if r.Sent != 4 || r.Failed != 2 || r.Span != 2*time.Second || r.Slowest != 3*time.Second || r.Errors["reset"] != 2 || r.Broken != 1 {
		t.Errorf("got %+v", r)
	}
	if r.Share() != 0.5 || (Requests{}).Share() != 0 {
		t.Errorf("share %v", r.Share())
	}
	for _, want := range []string{"2 of 4 failed", "within 2.00 s", "2 × reset", "1 broken"} {
		if !strings.Contains(r.String(), want) {
			t.Errorf("%q does not say %q", r, want)
		}
	}
}

func TestDescribe(t *testing.T) {
	inner := errors.New("reset")
	if got := describe(fmt.Errorf("get 10.0.0.1:4711: %w", fmt.Errorf("read: %w", inner))); got != "reset" {
		t.Errorf("got %q", got)
	}
	if got := describe(nil); got != "" {
		t.Errorf("no error: %q", got)
	}
}

// Counts of an object rise one by one; only a relist may leave some out.
func TestLostEvents(t *testing.T) {
	for name, tc := range map[string]struct {
		counts []int
		relist int // before which of the counts
		lost   int
	}{
		"all":               {[]int{0, 1, 2, 3}, -1, 0},
		"one lost":          {[]int{0, 1, 3}, -1, 1},
		"back":              {[]int{0, 1, 0}, -1, 1},
		"twice":             {[]int{0, 1, 1}, -1, 1},
		"left out by list":  {[]int{0, 1, 5}, 2, 0},
		"lost after a list": {[]int{0, 1, 5, 7}, 2, 1},
	} {
		in := newInformer(nil, "load")
		for i, n := range tc.counts {
			if i == tc.relist {
				in.listed()
			}
			in.see(&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "object-0"}, Data: data(n)})
		}
		if got := in.since(time.Time{}).Lost; got != tc.lost {
			t.Errorf("%s: %d lost, want %d", name, got, tc.lost)
		}
	}
}

// A watch that begins with all objects is a list, and an event that comes late tells of a silence.
func TestWatches(t *testing.T) {
	in, other := newInformer(nil, "load"), newInformer(nil, "load")
	yes := true
	in.watched(metav1.ListOptions{SendInitialEvents: &yes})
	in.watched(metav1.ListOptions{})
	old := data(1)
	old[timeKey] = fmt.Sprint(time.Now().Add(-3 * time.Second).UnixNano())
	in.see(&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "object-0"}, Data: data(0)})
	in.see(&v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "object-0"}, Data: old})
	w := watchesSince([]*informer{in, other}, time.Time{})
	if w.Informers != 2 || w.Moved != 1 || w.Relists != 1 || w.MostRelists != 1 || w.Again != 1 || w.Lost != 0 {
		t.Errorf("got %+v", w)
	}
	if w.Silent < 3*time.Second || w.Silent > 4*time.Second {
		t.Errorf("silent for %s", w.Silent)
	}
}
