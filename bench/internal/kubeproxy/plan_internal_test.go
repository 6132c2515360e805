package kubeproxy

import (
	"bytes"
	"strings"
	"testing"

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
		"no sizes":           func(p *Plan) { p.Sizes = nil },
		"sizes not in order": func(p *Plan) { p.Sizes = []int{5000, 1000} },
		"one Service":        func(p *Plan) { p.Sizes = []int{1} },
		"too many Services":  func(p *Plan) { p.Sizes = []int{100000} },
		"no rounds":          func(p *Plan) { p.Rounds = 0 },
		"an unknown measure": func(p *Plan) { p.Groups = []string{"warm"} },
	} {
		p := fullPlan()
		change(&p)
		if p.check() == nil {
			t.Errorf("%s: %+v is said to be right", name, p)
		}
	}
}

func TestPlanWants(t *testing.T) {
	p := fullPlan()
	if !p.wants(groupLoaded, 10000) || p.wants(groupLoaded, 30000) || !p.wants(groupCold, 30000) {
		t.Error("changes under load are not measured at 10,000 Services alone")
	}
	if p.Sizes = []int{100, 200}; !p.wants(groupLoaded, 200) || p.wants(groupLoaded, 100) {
		t.Error("without 10,000 Services, changes under load are not measured at the largest size alone")
	}
	if p.Groups = []string{groupPath}; p.wants(groupCold, 200) || !p.wants(groupPath, 100) {
		t.Error("measures that were not named are wanted, or the other way round")
	}
}

// TestEveryMeasureIsReported keeps rows and measures together: a row of a measure that nobody takes is silently left out.
func TestEveryMeasureIsReported(t *testing.T) {
	var s report.Samples
	names := []string{coldSeconds, unanswered, rssMiB, peakMiB, changeMillis, answerMillis, watchedMillis, changeCPU,
		loadedMillis, loadedAnswer, loadedWatched, loadedCPU, loadedRate, clusterIPP50, clusterIPP99, addedP50, directP50, directP99,
		plainRate, stickyQuotient, stickyStrays}
	for _, c := range []string{varco, peer} {
		for _, size := range []int{1000, 10000, 30000} {
			for _, n := range names {
				s = append(s, report.Sample{Contender: c, Size: size, Round: 1, Measure: n, Value: 1})
			}
		}
	}
	var b bytes.Buffer
	if err := theReport().Write(&b, "", []report.Fact{{Name: "kernel", Value: "6.18"}}, s); err != nil {
		t.Fatal(err)
	}
	for _, r := range rows() {
		if !strings.Contains(b.String(), "| "+r.Title+" | 1.00 | 1.00 | 1.00 |") {
			t.Errorf("no line for %q", r.Title)
		}
	}
	for _, want := range []string{"| kernel | 6.18 |", "## At 10,000 Services", "kept", "## How it was measured"} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in the report", want)
		}
	}
}

func TestGrowthIsJudged(t *testing.T) {
	tests := []struct {
		name      string
		cpu, cold float64 // at 30,000; at the sizes before it is 1
		want      []string
	}{
		{"flat and linear", 1.4, 3, []string{"kept", "kept"}},
		{"more work per change, and a start of the square", 1.6, 9, []string{"**not kept**", "**not kept**"}},
	}
	for _, tt := range tests {
		s := report.Samples{
			{Contender: varco, Size: 1000, Measure: changeCPU, Value: 1}, {Contender: varco, Size: 30000, Measure: changeCPU, Value: tt.cpu},
			{Contender: varco, Size: 10000, Measure: coldSeconds, Value: 1}, {Contender: varco, Size: 30000, Measure: coldSeconds, Value: tt.cold},
		}
		var b bytes.Buffer
		if err := writeGrowth(&b, s); err != nil {
			t.Fatal(err)
		}
		for i, line := range strings.Split(strings.TrimSpace(b.String()), "\n") {
			if !strings.HasSuffix(line, ": "+tt.want[i]) {
				t.Errorf("%s: got %q, want %s", tt.name, line, tt.want[i])
			}
		}
	}
}
