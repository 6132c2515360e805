package apiserverlb

import (
	"bytes"
	"math"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/util/cert"

	"varco.dev/bench/internal/report"
	"varco.dev/internal/apiserverlb/config"
)

func TestPlanCheck(t *testing.T) {
	for name, p := range map[string]Plan{"full": fullPlan(), "quick": quickPlan()} {
		if err := p.check(); err != nil {
			t.Errorf("the %s plan: %v", name, err)
		}
	}
	for name, change := range map[string]func(*Plan){
		"no connections":           func(p *Plan) { p.Connections = nil },
		"connections not in order": func(p *Plan) { p.Connections = []int{8, 1} },
		"too many connections":     func(p *Plan) { p.Connections = []int{100000} },
		"no bulk":                  func(p *Plan) { p.Bulks = []int{0} },
		"no bytes":                 func(p *Plan) { p.BulkMiB = 0 },
		"no idle connection":       func(p *Plan) { p.Idle = 0 },
		"too many watches":         func(p *Plan) { p.Watches = 100000 },
		"no probes":                func(p *Plan) { p.Probes = 0 },
		"no rounds":                func(p *Plan) { p.Rounds = 0 },
		"no passes":                func(p *Plan) { p.Passes = 0 },
		"no time":                  func(p *Plan) { p.Time = time.Millisecond },
		"a time before the start":  func(p *Plan) { p.Settle = -1 },
		"a fault of a moment":      func(p *Plan) { p.FaultTime = patience },
		"red for a moment":         func(p *Plan) { p.RedTime = redAfter + patience },
		"an end before the start":  func(p *Plan) { p.SpreadMost = p.SpreadLeast - 1 },
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
	for _, c := range []struct {
		measure      string
		size         int
		kept, theirs float64
		more         bool
	}{
		{getRate, fewConnections, 950, 1000, true}, {getRate, manyConnections, 950, 1000, true}, {connectRate, lanes, 800, 1000, true},
		{bulkCPU, oneBulk, 0.55, 1, false}, {bulkCPU, someBulk, 0.55, 1, false}, {idleKiB, mainIdle, 12, 34, false},
		{idleFDs, mainIdle, 2, 3.21, false}, {when(groupHung, moved), one, 6, math.Inf(1), false}, {when(groupCut, moved), one, 6, 789, false},
		{when(groupHung, failed), one, 1, 23, false}, {when(groupCut, failedFor), one, 1, 23, false}, {redFailed, one, 1, 99, false},
		{redEnded, one, 0, 99, false}, {rollFailed, one, 0, 77, false}, {spreadTime, one, 180, math.Inf(1), false}, {spreadEnds, one, 1, 44, false},
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
				{Contender: haproxy, Size: c.size, Measure: c.measure, Value: c.theirs}}
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

// A table has columns of those alone that were measured, ours first, whoever was first in the run.
func TestColumns(t *testing.T) {
	s := report.Samples{{Contender: nginx, Size: one, Measure: redFailed}, {Contender: varco, Size: one, Measure: redFailed},
		{Contender: direct, Size: fewConnections, Measure: getRate}, {Contender: haproxy, Size: one, Measure: redFailed}}
	var text bytes.Buffer
	if err := writeText(&text, s); err != nil {
		t.Fatal(err)
	}
	if want := "| measure | varco | haproxy | nginx | varco ÷ haproxy | bar | kept |"; !strings.Contains(text.String(), want) {
		t.Errorf("want %s in\n%s", want, text.String())
	}
}

// There are bars for varco alone, and none against a peer that is not there.
func TestBarsNeedThoseThatTheyAreOf(t *testing.T) {
	for want, names := range map[int][]string{2: {varco, haproxy}, 1: {varco, nginx}, 0: {haproxy, nginx}} {
		var s report.Samples
		for _, name := range names {
			s = append(s, report.Sample{Contender: name, Size: fewConnections, Measure: getRate, Value: 1},
				report.Sample{Contender: name, Size: one, Measure: redFailed, Value: 1})
		}
		var text bytes.Buffer
		if err := writeText(&text, s); err != nil {
			t.Fatal(err)
		}
		if got := strings.Count(text.String(), "| yes |"); got != want {
			t.Errorf("%v: %d bars, want %d in\n%s", names, got, want, text.String())
		}
	}
}

// Each balancer gets a configuration of its own, and ours is one that it reads.
func TestConfigurations(t *testing.T) {
	o, caFile := &options{varco: "bin/varco"}, filepath.Join(t.TempDir(), "ca.crt")
	ca, _, err := cert.GenerateSelfSignedCertKey("backends", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(caFile, ca, 0o644); err != nil {
		t.Fatal(err)
	}
	j := job{Dir: filepath.Join(t.TempDir(), "one"), At: netip.MustParseAddrPort("127.0.0.1:16443"), CAFile: caFile, Limit: 9000, Files: 19000,
		Backends: []netip.AddrPort{netip.MustParseAddrPort("10.0.0.1:6443"), netip.MustParseAddrPort("10.0.0.2:6443")}}
	for name, file := range map[string]string{varco: "varco.yaml", haproxy: "haproxy.cfg", cutting: "haproxy.cfg", nginx: "nginx.conf"} {
		c, err := o.program(name, j)
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(j.Dir, file))
		if err != nil {
			t.Fatal(err)
		}
		for _, want := range []string{j.At.String(), j.Backends[0].String(), j.Backends[1].String(), "9000"} {
			if name == nginx && want == "9000" {
				want = "19000"
			}
			if !strings.Contains(string(b), want) {
				t.Errorf("%s: no %s in\n%s", name, want, b)
			}
		}
		if got := strings.Contains(string(b), "shutdown-sessions"); got != (name == cutting) {
			t.Errorf("%s ends sessions: %t", name, got)
		}
		if c.Path == "" || !strings.Contains(strings.Join(c.Args, " "), file) {
			t.Errorf("%s is run by %s %v", name, c.Path, c.Args)
		}
	}
	if _, err := o.program("traefik", j); err == nil {
		t.Error("a contender that nobody knows has a program")
	}
	got, err := config.Read(filepath.Join(j.Dir, "varco.yaml"))
	if err != nil || len(got.Backends.Static) != 2 || got.Health.CAFile != caFile || got.Limits.Connections != 9000 {
		t.Errorf("varco reads %+v: %v", got, err)
	}
}
