package report

import (
	"encoding/csv"
	"fmt"
	"io"
	"math"
	"slices"
	"strconv"
	"strings"
)

// Sample is one value that was measured.
type Sample struct {
	Contender string
	// Size is how many things were served at a time, such as Services or connections.
	Size int
	// Round counts from 1.
	Round int
	// Measure is one of the names that the bench defines; the name says the unit.
	Measure string
	Value   float64
}

// Samples are all values of a run, in the order in which they were measured.
type Samples []Sample

// Of returns the values of one measure of one contender at one size.
func (s Samples) Of(contender, measure string, size int) (out []float64) {
	for _, x := range s {
		if x.Contender == contender && x.Measure == measure && x.Size == size {
			out = append(out, x.Value)
		}
	}
	return out
}

// Contenders returns the names of all contenders, in the order in which they first came.
func (s Samples) Contenders() (out []string) {
	for _, x := range s {
		if !slices.Contains(out, x.Contender) {
			out = append(out, x.Contender)
		}
	}
	return out
}

// Sizes returns all sizes, the smallest first.
func (s Samples) Sizes() (out []int) {
	for _, x := range s {
		if !slices.Contains(out, x.Size) {
			out = append(out, x.Size)
		}
	}
	slices.Sort(out)
	return out
}

// SizesOf returns the sizes that a measure was taken at, the smallest first.
func (s Samples) SizesOf(measure string) []int {
	var own Samples
	for _, x := range s {
		if x.Measure == measure {
			own = append(own, x)
		}
	}
	return own.Sizes()
}

// Percentile returns the smallest value that at least p percent of the values do not exceed (the nearest rank), NaN of
// none.
func Percentile(values []float64, p float64) float64 {
	if len(values) == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	rank := int(math.Ceil(p / 100 * float64(len(sorted))))
	return sorted[min(max(rank, 1), len(sorted))-1]
}

// Median returns the middle value, or the mean of the two in the middle; NaN of none.
func Median(values []float64) float64 {
	n := len(values)
	if n == 0 {
		return math.NaN()
	}
	sorted := slices.Sorted(slices.Values(values))
	return (sorted[(n-1)/2] + sorted[n/2]) / 2
}

// Fact is one thing that a reader must know of the run, such as the kernel's version.
type Fact struct{ Name, Value string }

// heading is the line above the samples.
var heading = []string{"contender", "size", "round", "measure", "value"}

// factMark begins the lines of facts, which stand above all others.
const factMark = "# "

// WriteCSV writes the facts, a line of headings and all samples.
func WriteCSV(w io.Writer, facts []Fact, s Samples) error {
	for _, f := range facts {
		if _, err := fmt.Fprintf(w, "%s%s: %s\n", factMark, f.Name, f.Value); err != nil {
			return err
		}
	}
	out := csv.NewWriter(w)
	if err := out.Write(heading); err != nil {
		return err
	}
	for _, x := range s {
		line := []string{x.Contender, strconv.Itoa(x.Size), strconv.Itoa(x.Round), x.Measure,
			strconv.FormatFloat(x.Value, 'g', 5, 64)}
		if err := out.Write(line); err != nil {
			return err
		}
	}
	out.Flush()
	return out.Error()
}

// ReadCSV reads what WriteCSV has written.
func ReadCSV(r io.Reader) (facts []Fact, s Samples, err error) {
	text, err := io.ReadAll(r)
	if err != nil {
		return nil, nil, fmt.Errorf("read samples: %w", err)
	}
	rest := string(text)
	for strings.HasPrefix(rest, factMark) {
		var line string
		line, rest, _ = strings.Cut(rest, "\n")
		name, value, _ := strings.Cut(strings.TrimPrefix(line, factMark), ": ")
		facts = append(facts, Fact{name, value})
	}
	in := csv.NewReader(strings.NewReader(rest))
	in.FieldsPerRecord = len(heading)
	lines, err := in.ReadAll()
	if err != nil {
		return nil, nil, fmt.Errorf("read samples: %w", err)
	}
	for i, l := range lines {
		if i == 0 {
			continue
		}
		x := Sample{Contender: l[0], Measure: l[3]}
		if _, err := fmt.Sscan(l[1]+" "+l[2]+" "+l[4], &x.Size, &x.Round, &x.Value); err != nil {
			return nil, nil, fmt.Errorf("read sample %d: %w", i, err)
		}
		s = append(s, x)
	}
	return facts, s, nil
}
