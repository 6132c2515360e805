package report_test

import (
	"bytes"
	"math"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"varco.dev/bench/internal/report"
)

func TestPercentile(t *testing.T) {
	hundred := make([]float64, 100)
	for i := range hundred {
		hundred[i] = float64(100 - i) // unsorted
	}
	tests := []struct {
		name   string
		values []float64
		p      float64
		want   float64
	}{
		{"median of one", []float64{7}, 50, 7},
		{"median of two is the lower", []float64{2, 1}, 50, 1},
		{"p99 of a hundred leaves one out", hundred, 99, 99},
		{"p100 is the greatest", hundred, 100, 100},
		{"p0 is the least", hundred, 0, 1},
		{"p99 of few is the greatest", []float64{1, 3, 2}, 99, 3},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			if got := report.Percentile(tt.values, tt.p); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
	if got := report.Percentile(nil, 50); !math.IsNaN(got) {
		t.Errorf("of nothing: got %v, want NaN", got)
	}
}

func TestMedian(t *testing.T) {
	tests := []struct {
		values []float64
		want   float64
	}{
		{[]float64{3}, 3},
		{[]float64{4, 1}, 2.5},
		{[]float64{9, 1, 5}, 5},
	}
	for _, tt := range tests {
		if got := report.Median(tt.values); got != tt.want {
			t.Errorf("median of %v: got %v, want %v", tt.values, got, tt.want)
		}
	}
	if got := report.Median(nil); !math.IsNaN(got) {
		t.Errorf("of nothing: got %v, want NaN", got)
	}
}

func TestCSVKeepsEverything(t *testing.T) {
	facts := []report.Fact{{Name: "kernel", Value: "6.18: of the lab"}, {Name: "command", Value: "`a, b`"}}
	samples := report.Samples{
		{Contender: "varco", Size: 1000, Round: 1, Measure: "cold start, s", Value: 0.125},
		{Contender: "kube-proxy", Size: 30000, Round: 2, Measure: "cold start, s", Value: 99.5},
	}
	var b bytes.Buffer
	if err := report.WriteCSV(&b, facts, samples); err != nil {
		t.Fatal(err)
	}
	gotFacts, got, err := report.ReadCSV(&b)
	if err != nil {
		t.Fatal(err)
	}
	if d := cmp.Diff(facts, gotFacts); d != "" {
		t.Errorf("facts (-want +got):\n%s", d)
	}
	if d := cmp.Diff(samples, got); d != "" {
		t.Errorf("samples (-want +got):\n%s", d)
	}
}

func TestReadCSVRefuses(t *testing.T) {
	head := "contender,size,round,measure,value\n"
	for name, text := range map[string]string{
		"a short line":           head + "varco,1000\n",
		"a value of no number":   head + "varco,1000,1,cold,fast\n",
		"a size of no number":    head + "varco,many,1,cold,1\n",
		"a heading of few words": "contender,value\n",
	} {
		if _, s, err := report.ReadCSV(strings.NewReader(text)); err == nil {
			t.Errorf("%s: read as %v", name, s)
		}
	}
}

func TestSamplesListNamesOnceInOrder(t *testing.T) {
	s := report.Samples{
		{Contender: "b", Size: 30, Measure: "x", Value: 1}, {Contender: "a", Size: 10, Measure: "y", Value: 2},
		{Contender: "b", Size: 10, Measure: "x", Value: 3}, {Contender: "b", Size: 10, Measure: "x", Value: 4},
	}
	if d := cmp.Diff([]string{"b", "a"}, s.Contenders()); d != "" {
		t.Errorf("contenders (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]int{10, 30}, s.Sizes()); d != "" {
		t.Errorf("sizes (-want +got):\n%s", d)
	}
	if d := cmp.Diff([]float64{3, 4}, s.Of("b", "x", 10)); d != "" {
		t.Errorf("values (-want +got):\n%s", d)
	}
}
