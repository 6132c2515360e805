package apiserverproxy

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"varco.dev/bench/internal/report"
)

func TestPlanCheck(t *testing.T) {
	for name, p := range map[string]Plan{"full": fullPlan(), "quick": quickPlan()} {
		if err := p.check(); err != nil {
			t.Errorf("the %s plan: %v", name, err)
		}
	}
	for name, change := range map[string]func(*Plan){
		"no connections":            func(p *Plan) { p.Connections = nil },
		"connections not in order":  func(p *Plan) { p.Connections = []int{8, 1} },
		"no connection":             func(p *Plan) { p.Connections = []int{0} },
		"too many connections":      func(p *Plan) { p.Connections = []int{100000} },
		"more than can be answered": func(p *Plan) { p.Loads = []int{100} },
		"no flow":                   func(p *Plan) { p.Flows = []int{0} },
		"no WebSockets":             func(p *Plan) { p.Sockets = 0 },
		"no rounds":                 func(p *Plan) { p.Rounds = 0 },
		"no page":                   func(p *Plan) { p.PageMiB = 0 },
		"no time":                   func(p *Plan) { p.FlowTime = time.Millisecond },
		"a time before the start":   func(p *Plan) { p.Settle = -1 },
		"an unknown measure":        func(p *Plan) { p.Groups = []string{"put"} },
	} {
		p := fullPlan()
		change(&p)
		if p.check() == nil {
			t.Errorf("%s: %+v is said to be right", name, p)
		}
	}
}

// TestBars looks at figures that just keep the bars, and at those that just do not.
func TestBars(t *testing.T) {
	for _, c := range []struct {
		measure      string
		size         int
		kept, theirs float64
		more         bool
	}{
		{getRate, mainConnections, 2000, 1000, true}, {spread, mainConnections, 1.1, 6, false}, {deadFailed, mainConnections, 0, 10, false},
		{paceP99, mainLoad, 5, 10, false}, {pageHeapMiB, mainPage, 1, 600, false}, {firstMillis, one, 100, 2000, false},
		{socketKiB, mainSockets, 64, 90, false},
	} {
		for _, worse := range []bool{false, true} {
			ours, want := c.kept, "| yes |"
			if worse {
				want = "| **no** |"
				ours += 0.001
				if c.more {
					ours -= 0.002
				}
			}
			s := report.Samples{{Contender: varco, Size: c.size, Measure: c.measure, Value: ours},
				{Contender: peer, Size: c.size, Measure: c.measure, Value: c.theirs}}
			for _, p := range parts() { // what makes a part appear at all
				if c.measure != p.measure {
					s = append(s, report.Sample{Contender: varco, Size: p.main, Measure: p.measure, Value: 1})
				}
			}
			var text bytes.Buffer
			if err := writeText(&text, s); err != nil {
				t.Fatal(err)
			}
			if !strings.Contains(lineWith(text.String(), report.Format(c.theirs)), want) {
				t.Errorf("%s of %v: want %s in\n%s", c.measure, ours, want, text.String())
			}
		}
	}
}

// lineWith is the line with a figure of the peer.
func lineWith(text, figure string) string {
	for line := range strings.Lines(text) {
		if strings.Contains(line, " | "+figure+" | ") {
			return line
		}
	}
	return ""
}
