package kubectlproxy

import (
	"bytes"
	"strings"
	"testing"
	"time"

	"varco.dev/bench/internal/report"
)

func TestPlanCheck(t *testing.T) {
	if err := fullPlan().check(); err != nil {
		t.Errorf("the full plan: %v", err)
	}
	if err := quickPlan().check(); err != nil {
		t.Errorf("the quick plan: %v", err)
	}
	for name, change := range map[string]func(*Plan){
		"no connections":           func(p *Plan) { p.Connections = nil },
		"connections not in order": func(p *Plan) { p.Connections = []int{8, 1} },
		"no connection":            func(p *Plan) { p.Connections = []int{0} },
		"too many connections":     func(p *Plan) { p.Connections = []int{100000} },
		"too many watches":         func(p *Plan) { p.Watches = 100000 },
		"no watches":               func(p *Plan) { p.Watches = 0 },
		"no rounds":                func(p *Plan) { p.Rounds = 0 },
		"no bodies":                func(p *Plan) { p.BodyMiB = 0 },
		"no time":                  func(p *Plan) { p.GetTime = time.Millisecond },
		"an unknown measure":       func(p *Plan) { p.Groups = []string{"put"} },
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
	kept := map[string][2]float64{ // ours, theirs
		getRate: {1500, 1000}, getCPU: {6.5, 10}, addedP99: {1, 9}, bodyRate: {1500, 1000}, bodyMiB: {16, 1},
		chunkRate: {1500, 1000}, chunkMiB: {16, 1}, startMillis: {100, 50},
	}
	higher := map[string]bool{getRate: true, bodyRate: true, chunkRate: true}
	size := map[string]int{getRate: mainConnections, getCPU: mainConnections, addedP99: mainWatches}
	for _, worse := range []bool{false, true} {
		var s report.Samples
		for measure, v := range kept {
			ours := v[0]
			if worse && higher[measure] {
				ours *= 0.99
			} else if worse {
				ours *= 1.01
			}
			at := max(one, size[measure])
			s = append(s, report.Sample{Contender: varco, Size: at, Measure: measure, Value: ours},
				report.Sample{Contender: peer, Size: at, Measure: measure, Value: v[1]})
			if measure == addedP99 { // the table of watches is found by this one
				s = append(s, report.Sample{Contender: varco, Size: at, Measure: viaP99, Value: 2},
					report.Sample{Contender: peer, Size: at, Measure: viaP99, Value: 2})
			}
		}
		s = inOrder(s)
		var b bytes.Buffer
		if err := writeText(&b, s); err != nil {
			t.Fatal(err)
		}
		yes, no := strings.Count(b.String(), "| yes |"), strings.Count(b.String(), "| **no** |")
		if worse && (yes != 0 || no != len(kept)) || !worse && (no != 0 || yes != len(kept)) {
			t.Errorf("worse than the bars %v: %d kept and %d not, want all %d alike:\n%s", worse, yes, no, len(kept), b.String())
		}
	}
}

// inOrder puts our samples first.
func inOrder(s report.Samples) (out report.Samples) {
	for _, name := range []string{varco, peer} {
		for _, x := range s {
			if x.Contender == name {
				out = append(out, x)
			}
		}
	}
	return out
}
