package report_test

import (
	"bytes"
	"encoding/xml"
	"errors"
	"io"
	"math"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"varco.dev/bench/internal/report"
)

var few = report.Samples{
	{Contender: "ours", Size: 10, Measure: "start", Value: 1}, {Contender: "theirs", Size: 10, Measure: "start", Value: 12.5},
	{Contender: "ours", Size: 10, Measure: "rate", Value: 0.8}, {Contender: "theirs", Size: 10, Measure: "rate", Value: 0.5},
	{Contender: "ours", Size: 10, Measure: "path", Value: 61}, {Contender: "theirs", Size: 10, Measure: "path", Value: 60},
	{Contender: "ours", Size: 20, Measure: "start", Value: 2},
}

func TestWriteTable(t *testing.T) {
	rows := []report.Row{
		{Title: "start, s", Measure: "start", Figure: report.Median, Bar: 1},
		{Title: "rate", Measure: "rate", Figure: report.Median, Bar: 0.9, AtLeast: true},
		{Title: "path", Measure: "path", Figure: report.Median, Bar: report.NoBar(), Versus: 1},
		{Title: "free", Measure: "path", Figure: report.P(99), Bar: report.NoBar()},
		{Title: "not measured", Measure: "nothing", Figure: report.Median, Bar: 1},
	}
	var b bytes.Buffer
	if err := report.WriteTable(&b, few, 10, rows); err != nil {
		t.Fatal(err)
	}
	want := `| measure | ours | theirs | theirs ÷ ours | bar | kept |
| --- | ---: | ---: | ---: | ---: | --- |
| start, s | 1.00 | 12.5 | 12.5 | ≤ 1.00 | yes |
| rate | 0.800 | 0.500 | 0.625 | ≥ 0.900 | **no** |
| path | 61.0 | 60.0 | 0.984 | ≤ 60.0 | **no** |
| free | 61.0 | 60.0 | 0.984 |  |  |
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestWriteTableOfOneContender(t *testing.T) {
	alone := report.Samples{{Contender: "ours", Size: 10, Measure: "path", Value: 61}}
	rows := []report.Row{{Title: "path", Measure: "path", Figure: report.Median, Bar: report.NoBar(), Versus: 1}}
	var b bytes.Buffer
	if err := report.WriteTable(&b, alone, 10, rows); err != nil {
		t.Fatal(err)
	}
	want := "| measure | ours | bar | kept |\n| --- | ---: | ---: | --- |\n| path | 61.0 |  |  |\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestTableWithOursFirstAndSpread(t *testing.T) {
	s := append(slices.Clone(few), report.Sample{Contender: "ours", Size: 10, Measure: "rate", Value: 0.9})
	table := report.Table{Size: 10, OursFirst: true, Spread: true, Rows: []report.Row{
		{Title: "rate", Measure: "rate", Figure: report.Median, Bar: report.NoBar(), Versus: 1.5, AtLeast: true},
		{Title: "start", Measure: "start", Figure: report.Median, Bar: report.NoBar(), Versus: 0.05},
		{Title: "path", Measure: "path", Figure: report.Median, Bar: 61},
		{Title: "added", Measure: "added", Figure: report.Median, Bar: 1},
	}}
	s = append(s, report.Sample{Contender: "ours", Size: 10, Measure: "added", Value: -0.5},
		report.Sample{Contender: "theirs", Size: 10, Measure: "added", Value: 0.25})
	var b bytes.Buffer
	if err := table.Write(&b, s); err != nil {
		t.Fatal(err)
	}
	want := `| measure | ours | theirs | ours ÷ theirs | bar | kept |
| --- | ---: | ---: | ---: | ---: | --- |
| rate | 0.850 (0.800 to 0.900) | 0.500 | 1.70 | ≥ 1.50 × = 0.750 | yes |
| start | 1.00 | 12.5 | 0.080 | ≤ 0.050 × = 0.625 | **no** |
| path | 61.0 | 60.0 | 1.02 | ≤ 61.0 | yes |
| added | -0.500 | 0.250 | – | ≤ 1.00 | yes |
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestTableOfThreeContenders(t *testing.T) {
	s := append(slices.Clone(few), report.Sample{Contender: "ours too", Size: 10, Measure: "rate", Value: 0.1})
	row := report.Row{Title: "rate", Measure: "rate", Figure: report.Median, Bar: report.NoBar(), Versus: 1.5, AtLeast: true}
	var b bytes.Buffer
	if err := (report.Table{Size: 10, OursFirst: true, Rows: []report.Row{row}}).Write(&b, s); err != nil {
		t.Fatal(err)
	}
	want := `| measure | ours | theirs | ours too | ours ÷ theirs | bar | kept |
| --- | ---: | ---: | ---: | ---: | ---: | --- |
| rate | 0.800 | 0.500 | 0.100 | 1.60 | ≥ 1.50 × = 0.750 | yes |
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestRelativeBarOfOneContender(t *testing.T) {
	alone := report.Samples{{Contender: "ours", Size: 10, Measure: "rate", Value: 0.8}}
	row := report.Row{Title: "rate", Measure: "rate", Figure: report.Median, Bar: report.NoBar(), Versus: 1.5, AtLeast: true}
	var b bytes.Buffer
	if err := (report.Table{Size: 10, Rows: []report.Row{row}}).Write(&b, alone); err != nil {
		t.Fatal(err)
	}
	want := "| measure | ours | bar | kept |\n| --- | ---: | ---: | --- |\n| rate | 0.800 |  |  |\n"
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestWriteGrowth(t *testing.T) {
	var b bytes.Buffer
	rows := []report.Row{{Title: "start, s", Measure: "start", Figure: report.Median}}
	if err := report.WriteGrowth(&b, append(slices.Clone(few), report.Sample{Contender: "ours", Size: 30, Measure: "rate"}), "Services", rows); err != nil {
		t.Fatal(err)
	}
	want := `| Services | start, s, ours | start, s, theirs |
| --- | ---: | ---: |
| 10 | 1.00 | 12.5 |
| 20 | 2.00 | – |
`
	if d := cmp.Diff(want, b.String()); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestFormat(t *testing.T) {
	for v, want := range map[float64]string{
		0: "0", 0.01234: "0.012", 0.5: "0.500", 1.0 / 3: "0.333", 3.14159: "3.14", 42: "42.0", 999: "999", 1000: "1,000",
		12345.6: "12,346", 1234567: "1,234,567", -2500: "-2,500", math.NaN(): "–", math.Inf(1): "never", math.Inf(-1): "–",
	} {
		if got := report.Format(v); got != want {
			t.Errorf("%v: got %q, want %q", v, got, want)
		}
	}
}

func TestWriteSVG(t *testing.T) {
	panels := []report.Panel{
		{Title: "start <s>", Axis: "Things", Measure: "start", Figure: report.Median},
		{Title: "nothing", Measure: "nothing", Figure: report.Median},
		{Title: "rate", Measure: "rate", Figure: report.Median},
	}
	var b bytes.Buffer
	if err := report.WriteSVG(&b, few, panels); err != nil {
		t.Fatal(err)
	}
	counts := elements(t, b.String())
	// Panel 1 has two points and one; the second has none; the third has one each.
	if counts["circle"] != 5 || counts["polyline"] != 4 || counts["g"] != 3 {
		t.Errorf("got %v, want 5 circles, 4 polylines and 3 groups", counts)
	}
	if bad := "NaN"; strings.Contains(b.String(), bad) || strings.Contains(b.String(), "Inf") {
		t.Errorf("places that are no numbers in:\n%s", b.String())
	}
	if !strings.Contains(b.String(), `viewBox="0 0 900 560"`) {
		t.Errorf("three panels do not stand in two rows:\n%s", b.String())
	}
}

// TestSVGPlacesAreLogarithmic looks at a line through 1, 10 and 100, which is straight if both axes are.
func TestSVGPlacesAreLogarithmic(t *testing.T) {
	var s report.Samples
	for _, n := range []int{10, 100, 1000} {
		s = append(s, report.Sample{Contender: "ours", Size: n, Measure: "m", Value: float64(n) / 10})
	}
	var b bytes.Buffer
	if err := report.WriteSVG(&b, s, []report.Panel{{Title: "m", Measure: "m", Figure: report.Median}}); err != nil {
		t.Fatal(err)
	}
	if want := `points="64.0,240.0 200.0,140.0 336.0,40.0"`; !strings.Contains(b.String(), want) {
		t.Errorf("no line of %s in:\n%s", want, b.String())
	}
}

// TestSVGNamesDoNotCover draws lines that end at the same place, and wants their names below each other.
func TestSVGNamesDoNotCover(t *testing.T) {
	var s report.Samples
	for _, name := range []string{"ours", "theirs", "others"} {
		s = append(s, report.Sample{Contender: name, Size: 10, Measure: "m", Value: 100})
	}
	var b bytes.Buffer
	if err := report.WriteSVG(&b, s, []report.Panel{{Title: "m", Measure: "m", Figure: report.Median}}); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`y="244.0">ours<`, `y="258.0">theirs<`, `y="272.0">others<`} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %s in:\n%s", want, b.String())
		}
	}
}

// elements counts the elements of a text that must be XML.
func elements(t *testing.T, text string) map[string]int {
	t.Helper()
	out := map[string]int{}
	for d := xml.NewDecoder(strings.NewReader(text)); ; {
		token, err := d.Token()
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatalf("not XML: %v\n%s", err, text)
		}
		if start, ok := token.(xml.StartElement); ok {
			out[start.Name.Local]++
		}
	}
}
