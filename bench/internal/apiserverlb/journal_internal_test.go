package apiserverlb

import (
	"errors"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

// after is a time in seconds.
func after(s float64) time.Time {
	return time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC).Add(time.Duration(s * float64(time.Second)))
}

// example is a journal: clients 0 and 1 are at server 1 when it is stopped at 10 s; client 2 is not. Client 3 comes later.
func example() journal {
	return journal{clients: 4, turns: []turn{
		{after(1), 0, 1}, {after(2), 1, 2}, {after(2), 2, 0}, {after(3), 1, gone}, {after(4), 1, 1},
		{after(12), 0, gone}, {after(12.5), 0, 1}, {after(13), 1, gone}, {after(14), 1, 2}, {after(15), 0, gone}, {after(16), 0, 0}, {after(17), 3, 1},
	}}
}

func TestWhere(t *testing.T) {
	for at, want := range map[float64][]int{
		0: {gone, gone, gone, gone}, 2: {1, 2, 0, gone}, 3.5: {1, gone, 0, gone}, 10: {1, 1, 0, gone}, 20: {0, 2, 0, 1},
	} {
		if d := cmp.Diff(want, example().where(after(at))); d != "" {
			t.Errorf("after %v s (-want +got):\n%s", at, d)
		}
	}
}

func TestMoved(t *testing.T) {
	if n, last, ok := example().moved(1, after(10)); n != 2 || last != 6*time.Second || !ok {
		t.Errorf("got %d in %s, %t: want two, the last after 6 s, who came back to the same server before", n, last, ok)
	}
	short := example()
	short.turns = short.turns[:len(short.turns)-2]
	if n, _, ok := short.moved(1, after(10)); n != 2 || ok {
		t.Errorf("got %d, %t: want two, of whom one is nowhere", n, ok)
	}
	if n, _, ok := example().moved(2, after(10)); n != 0 || !ok {
		t.Errorf("got %d, %t: want nobody", n, ok)
	}
}

func TestEnded(t *testing.T) {
	if got := example().ended(after(12), after(15)); len(got) != 2 {
		t.Errorf("got %v, want the ends after 13 and 15 s", got)
	}
	if got := example().clientsEnded(1, after(10), after(15)); got != 1 {
		t.Errorf("got %d, want client 0 alone, once", got)
	}
	if got := example().clientsEnded(4, after(10), after(15)); got != 2 {
		t.Errorf("got %d, want clients 0 and 1", got)
	}
}

func TestFailures(t *testing.T) {
	bad := errors.New("no answer")
	all := []answer{{began: after(1), err: bad}, {began: after(2)}, {began: after(4), err: bad}, {began: after(3), err: bad}, {began: after(5)},
		{began: after(6), err: bad}}
	for _, c := range []struct {
		since, until, percent float64
		lasted                time.Duration
	}{
		{2, 6, 50, time.Second}, {1, 7, 400. / 6, 5 * time.Second}, {2, 3, 0, 0}, {8, 9, 0, 0}, {3, 4, 100, 0},
	} {
		if percent, lasted := failures(all, after(c.since), after(c.until)); percent != c.percent || lasted != c.lasted {
			t.Errorf("from %v to %v s: got %v %% for %s, want %v %% for %s", c.since, c.until, percent, lasted, c.percent, c.lasted)
		}
	}
}

func TestHighest(t *testing.T) {
	times := []time.Time{after(9), after(0), after(1), after(5), after(5.5), after(6)}
	for over, want := range map[time.Duration]float64{time.Second: 2, 500 * time.Millisecond: 2, 10 * time.Second: 0.5} {
		if got := highest(times, over); got != want {
			t.Errorf("over %s: got %v, want %v", over, got, want)
		}
	}
	if got := highest(nil, time.Second); got != 0 {
		t.Errorf("got %v of nothing", got)
	}
}

func TestApart(t *testing.T) {
	for _, c := range []struct {
		where []int
		want  float64
	}{
		{[]int{0, 1, 2}, 0}, {[]int{0, 0, 1, 1}, 150}, {[]int{0, 0, 0, 1, 1, 2, gone}, 100}, {[]int{gone}, 0},
	} {
		if got := apart(c.where, 3); got != c.want {
			t.Errorf("%v: got %v, want %v", c.where, got, c.want)
		}
	}
}
