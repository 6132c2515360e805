package apiserverlb

import (
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/backend/health"
)

func at(n byte) netip.AddrPort {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, 0, n}), 6443)
}

// up is a backend that new connections go to.
func up(n byte, sessions int) member { return member{addr: at(n), sessions: sessions, taking: true} }

// red is one that shall have none.
func red(n byte, sessions int) member { return member{addr: at(n), sessions: sessions, leaving: true} }

// TestPlan looks at what may be closed a second after the last look.
func TestPlan(t *testing.T) {
	for name, c := range map[string]struct {
		members []member
		want    map[netip.AddrPort]int
	}{
		"nothing":                    {nil, nil},
		"even":                       {[]member{up(1, 1000), up(2, 1000), up(3, 1000)}, nil},
		"within the spread":          {[]member{up(1, 1000), up(2, 1100), up(3, 900)}, nil},
		"one is back":                {[]member{up(1, 1500), up(2, 1500), up(3, 0)}, map[netip.AddrPort]int{at(1): 15, at(2): 15}},
		"fullest first":              {[]member{up(1, 2000), up(2, 1000), up(3, 0)}, map[netip.AddrPort]int{at(1): 30}},
		"not below the mean":         {[]member{up(1, 104), up(2, 100), up(3, 96)}, nil},
		"as even as can be":          {[]member{up(1, 1), up(2, 0)}, nil},
		"red":                        {[]member{up(1, 1500), red(2, 1500)}, map[netip.AddrPort]int{at(2): 300}},
		"red, and few left":          {[]member{up(1, 1500), red(2, 3)}, map[netip.AddrPort]int{at(2): 3}},
		"nowhere to go":              {[]member{red(1, 1500), red(2, 1500)}, nil},
		"one is only just back":      {[]member{up(1, 1500), {addr: at(2), taking: true, fresh: true}}, nil},
		"alone":                      {[]member{up(1, 1500)}, nil},
		"not taking, but not red":    {[]member{up(1, 1500), {addr: at(2), sessions: 20}}, nil},
		"less than one of a hundred": {[]member{up(1, 30), up(2, 0)}, nil},
		"far":                        {[]member{up(1, 0), {addr: at(2), sessions: 1000, far: true}}, map[netip.AddrPort]int{at(2): 10}},
		"far, and uneven near":       {[]member{up(1, 900), up(2, 92), {addr: at(3), sessions: 8, far: true}}, map[netip.AddrPort]int{at(1): 2, at(3): 8}},
		"red while one is fresh":     {[]member{up(1, 1000), {addr: at(2), taking: true, fresh: true}, red(3, 1000)}, map[netip.AddrPort]int{at(3): 200}},
	} {
		t.Run(name, func(t *testing.T) {
			p, now := &pacer{spread: 0.2, percent: 1}, time.Unix(1e9, 0)
			p.plan(now, c.members)
			var got map[netip.AddrPort]int
			for _, cl := range p.plan(now.Add(time.Second), c.members) {
				if got == nil {
					got = map[netip.AddrPort]int{}
				}
				got[cl.addr] += cl.most
			}
			if diff := cmp.Diff(c.want, got, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
		})
	}
}

// TestPlanNothing lets none be closed any more, and then some again.
func TestPlanNothing(t *testing.T) {
	p, now, members := &pacer{spread: 0.2, percent: 100}, time.Unix(1e9, 0), []member{up(1, 1000), up(2, 0)}
	for second, percent := range []float64{100, 100, 0, 0, 100} {
		p.percent = percent
		got := 0
		for _, c := range p.plan(now.Add(time.Duration(second)*time.Second), members) {
			got += c.most
		}
		if want := percent > 0 && second > 0; (got > 0) != want {
			t.Errorf("at second %d, with %v percent: %d", second, percent, got)
		}
	}
}

// TestMembers looks at what becomes of backends, at a time when all have been as they are for a minute or for a second.
func TestMembers(t *testing.T) {
	now := time.Unix(1e9, 0)
	of := func(b Backend, state health.State, age time.Duration) Backend {
		b.Source, b.State, b.Since = "static", state, now.Add(-age)
		return b
	}
	open := Backend{Verdict: health.Verdict{Open: true}}
	for name, c := range map[string]struct {
		backends []Backend
		want     string
	}{
		"up":                   {[]Backend{of(Backend{}, health.Up, time.Minute)}, "taking"},
		"just up":              {[]Backend{of(Backend{}, health.Up, time.Second)}, "taking fresh"},
		"red":                  {[]Backend{of(Backend{}, health.Draining, time.Minute)}, "leaving"},
		"just red":             {[]Backend{of(Backend{}, health.Draining, time.Second)}, ""},
		"red as all others":    {[]Backend{of(open, health.Draining, time.Minute)}, "taking fresh"},
		"just down":            {[]Backend{of(Backend{}, health.Down, time.Second)}, "leaving"},
		"lost":                 {[]Backend{{Verdict: health.Verdict{Since: now.Add(-time.Minute)}}}, "leaving"},
		"far":                  {[]Backend{of(Backend{}, health.Up, time.Minute), of(Backend{Prefers: true}, health.Up, time.Minute)}, "far"},
		"far, the near is red": {[]Backend{of(Backend{}, health.Up, time.Minute), of(Backend{Prefers: true}, health.Draining, time.Minute)}, "taking"},
	} {
		m := membersOf(c.backends, now)[0]
		var got []string
		for word, is := range map[string]bool{"taking": m.taking, "fresh": m.taking && m.fresh, "leaving": m.leaving, "far": m.far} {
			if is {
				got = append(got, word)
			}
		}
		slices.Sort(got)
		want := strings.Fields(c.want)
		slices.Sort(want)
		if !slices.Equal(got, want) {
			t.Errorf("%s: %q, want %q", name, got, want)
		}
	}
}

// TestFew has so few connections that one of them is more than may be closed in a second: it takes longer.
func TestFew(t *testing.T) {
	p, now, members := &pacer{spread: 0.2, percent: 1}, time.Unix(1e9, 0), []member{up(1, 20), up(2, 0)}
	for seconds := range 10 {
		got := p.plan(now.Add(time.Duration(seconds)*time.Second), members)
		if want := seconds >= 5; (len(got) == 1) != want {
			t.Errorf("after %d s: %v", seconds, got)
		}
	}
}

// TestPacerEvens has a backend come back, and clients of connections that were closed come back to the emptiest one. It looks at
// how long that takes and at how many are closed in each second.
func TestPacerEvens(t *testing.T) {
	for _, size := range []int{30, 300, 20000} {
		members := []member{up(1, size/2), up(2, size/2), up(3, 0)}
		p, now := &pacer{spread: 0.2, percent: 1}, time.Unix(1e9, 0)
		seconds, most := 0, 0.0
		for ; seconds < 180; seconds++ {
			inSecond := 0
			for range 4 { // four looks a second
				now = now.Add(time.Second / 4)
				for _, c := range p.plan(now, members) {
					p.closed(c.reason, c.most)
					inSecond += c.most
					members[c.addr.Addr().As4()[3]-1].sessions -= c.most
					members[2].sessions += c.most
				}
			}
			most = max(most, float64(inSecond))
			if !p.moving && seconds > 0 {
				break
			}
		}
		apart := members[0].sessions - members[2].sessions
		if mean := size / 3; seconds >= 180 || apart*5 > mean {
			t.Errorf("of %d: after %d s still apart by %d", size, seconds, apart)
		}
		if limit := max(1, float64(size)/100); most > limit+1 {
			t.Errorf("of %d: %v were closed in one second, more than %v", size, most, limit)
		}
	}
}

// TestPacerSavesNothing looks after an hour without a look: no more may be closed than in a second.
func TestPacerSavesNothing(t *testing.T) {
	p, now := &pacer{spread: 0.2, percent: 1}, time.Unix(1e9, 0)
	members := []member{up(1, 3000), up(2, 0)}
	p.plan(now, members)
	sum := 0
	for _, c := range p.plan(now.Add(time.Hour), members) {
		sum += c.most
	}
	if sum != 30 {
		t.Errorf("%d may be closed at once, want 30", sum)
	}
}
