package publish_test

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"varco.dev/bench/internal/publish"
	"varco.dev/bench/internal/report"
)

var samples = report.Samples{{Contender: "ours", Size: 1, Round: 1, Measure: "rate", Value: 2.5}}

// theReport writes how many samples it got.
var theReport = publish.Report{Name: "test", Text: func(w io.Writer, s report.Samples) error {
	_, err := fmt.Fprintf(w, "%d samples\n", len(s))
	return err
}}

func TestReportOfARunAndOfItsSamples(t *testing.T) {
	facts := []report.Fact{{Name: "kernel", Value: "6.18"}}
	first, second := filepath.Join(t.TempDir(), "new", "folder"), t.TempDir()
	var out, again bytes.Buffer
	if err := theReport.Write(&out, first, facts, samples); err != nil {
		t.Fatal(err)
	}
	if want := "# test, side by side\n\n| | |\n|---|---|\n| kernel | 6.18 |\n1 samples\n"; out.String() != want {
		t.Errorf("got:\n%s\nwant:\n%s", out.String(), want)
	}
	if err := theReport.Again(&again, second, filepath.Join(first, "test.csv")); err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(out.String(), again.String()); d != "" {
		t.Errorf("printed (-want +got):\n%s", d)
	}
	for _, name := range []string{"test.md", "test.svg", "test.csv"} {
		a, err := os.ReadFile(filepath.Join(first, name))
		if err != nil {
			t.Fatal(err)
		}
		b, err := os.ReadFile(filepath.Join(second, name))
		if err != nil || len(a) == 0 {
			t.Fatal(name, len(a), err)
		}
		if d := cmp.Diff(string(a), string(b)); d != "" {
			t.Errorf("%s (-want +got):\n%s", name, d)
		}
	}
}

func TestReportOfNothing(t *testing.T) {
	if err := theReport.Write(io.Discard, "", nil, nil); err == nil {
		t.Error("a report of no samples was written")
	}
}

func TestFacts(t *testing.T) {
	var names []string
	for _, f := range append(publish.Machine(), publish.Command()) {
		names = append(names, f.Name)
		if f.Value == "" || strings.Contains(f.Value, "unknown") {
			t.Errorf("%s is %q", f.Name, f.Value)
		}
	}
	if d := cmp.Diff([]string{"date", "machine", "kernel", "command"}, names); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if got := publish.Says(t.Context(), "sh", "-c", "echo one; echo two"); got != "one" {
		t.Errorf("got %q, want the first line", got)
	}
	if got := publish.Says(t.Context(), "false"); got != "unknown" {
		t.Errorf("got %q of a program that fails", got)
	}
}
