package cluster

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestFollow(t *testing.T) {
	boom := errors.New("boom\n  the end of its log")
	for _, tc := range []struct {
		name string
		tell func(steps)
		want []string // titles and states seen
		err  string
	}{
		{"all goes well", func(s steps) {
			s.begin("network")("made", nil)
			s.tell(Step{Title: upTitle, State: Done})
		}, []string{"network running", "network done"}, ""},
		{"a step fails", func(s steps) {
			s.begin("network")("made", nil)
			s.begin("etcd")("", boom)
		}, []string{"network running", "network done", "etcd running", "etcd failed"}, boom.Error()},
		{"the supervisor dies", func(s steps) { s.begin("network") }, []string{"network running"}, errSilent.Error()},
	} {
		t.Run(tc.name, func(t *testing.T) {
			var pipe bytes.Buffer
			tc.tell(steps{&pipe})
			var got []string
			err := follow(&pipe, upTitle, func(s Step) { got = append(got, s.Title+" "+string(s.State)) })
			if diff := cmp.Diff(tc.want, got); diff != "" {
				t.Errorf("steps (-want +got):\n%s", diff)
			}
			if (err == nil) != (tc.err == "") || err != nil && err.Error() != tc.err {
				t.Errorf("got error %v, want %q", err, tc.err)
			}
		})
	}
}

func TestPrinter(t *testing.T) {
	show := []Step{
		{Title: "etcd", State: Running},
		{Title: "etcd", State: Done, Took: 1200 * time.Millisecond, Detail: "1 process"},
		{Title: "nodes", State: Running},
		{Title: "nodes", State: Failed, Took: time.Second, Detail: "many lines"},
	}
	var plain, terminal strings.Builder
	for _, printer := range []*Printer{
		NewPrinter(&plain, false), NewPrinter(&terminal, true)} {
		for _, s := range show {
			printer.Step(s)
		}
	}
	want := "✓ etcd                       1.2s  1 process\n✗ nodes                      1.0s  failed\n"
	if diff := cmp.Diff(want, plain.String()); diff != "" {
		t.Errorf("plain (-want +got):\n%s", diff)
	}
	// The last redraw goes up over both lines and writes them again.
	last := terminal.String()[strings.LastIndex(terminal.String(), "\x1b[2A"):]
	if got := strings.ReplaceAll(strings.TrimPrefix(last, "\x1b[2A"), "\x1b[2K", ""); got != want {
		t.Errorf("terminal: last redraw is %q, want the lines %q", last, want)
	}
}
