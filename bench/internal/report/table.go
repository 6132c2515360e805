package report

import (
	"fmt"
	"io"
	"math"
	"strings"
)

// Row is one line of the table of one size: a measure, how its samples become one figure, and what it should be.
type Row struct {
	// Title is what the reader sees; it says the unit.
	Title string
	// Measure names the samples; Figure makes one value of them.
	Measure string
	Figure  func([]float64) float64
	// Bar is what the first contender is to keep, NoBar if there is none. It is the most that is right, or the least if
	// AtLeast is set.
	Bar     float64
	AtLeast bool
	// Versus says that the second contender's figure is the bar, where that was measured.
	Versus bool
}

// NoBar is the bar of a row that has none.
func NoBar() float64 { return math.NaN() }

// P returns a function for Row.Figure, a percentile.
func P(p float64) func([]float64) float64 {
	return func(v []float64) float64 { return Percentile(v, p) }
}

// WriteTable writes a Markdown table of one size: a line for each row that was measured, a column for each contender.
// The first contender is the one that has bars.
func WriteTable(w io.Writer, s Samples, size int, rows []Row) error {
	names := s.Contenders()
	head := append(append([]string{"measure"}, names...), "bar", "kept")
	if len(names) == 2 {
		head = append(append([]string{"measure"}, names...), names[1]+" ÷ "+names[0], "bar", "kept")
	}
	lines := [][]string{head, rule(len(head))}
	for _, r := range rows {
		if line := r.line(s, names, size); line != nil {
			lines = append(lines, line)
		}
	}
	for _, l := range lines {
		if _, err := fmt.Fprintf(w, "| %s |\n", strings.Join(l, " | ")); err != nil {
			return err
		}
	}
	return nil
}

// rule is the line below the headings: figures to the right.
func rule(columns int) []string {
	out := []string{"---"}
	for range columns - 2 {
		out = append(out, "---:")
	}
	return append(out, "---")
}

func (r Row) line(s Samples, names []string, size int) []string {
	figures, some := r.figures(s, names, size)
	if !some {
		return nil
	}
	line := []string{r.Title}
	for _, f := range figures {
		line = append(line, Format(f))
	}
	if len(names) == 2 {
		line = append(line, Format(figures[1]/figures[0]))
	}
	bar := r.bar(figures)
	return append(line, r.barText(bar), r.kept(figures[0], bar))
}

func (r Row) figures(s Samples, names []string, size int) (out []float64, some bool) {
	for _, name := range names {
		v := s.Of(name, r.Measure, size)
		some = some || len(v) > 0
		out = append(out, r.Figure(v))
	}
	return out, some
}

func (r Row) bar(figures []float64) float64 {
	if r.Versus && len(figures) == 2 {
		return figures[1]
	}
	return r.Bar
}

func (r Row) barText(bar float64) string {
	sign := "≤ "
	if r.AtLeast {
		sign = "≥ "
	}
	if math.IsNaN(bar) {
		return ""
	}
	return sign + Format(bar)
}

func (r Row) kept(figure, bar float64) string {
	switch {
	case math.IsNaN(figure) || math.IsNaN(bar):
		return ""
	case r.AtLeast && figure >= bar, !r.AtLeast && figure <= bar:
		return "yes"
	}
	return "**no**"
}

// Format writes a figure with three digits that count, and a dash for what was not measured.
func Format(v float64) string {
	switch {
	case math.IsNaN(v) || math.IsInf(v, 0):
		return "–"
	case v == 0:
		return "0"
	case math.Abs(v) >= 1000:
		return thousands(v)
	}
	decimals := max(0, 2-int(math.Floor(math.Log10(math.Abs(v)))))
	return fmt.Sprintf("%.*f", min(decimals, 3), v)
}

// Count writes a number of things.
func Count(n int) string { return thousands(float64(n)) }

// thousands writes a large figure with commas, as in 12,300.
func thousands(v float64) string {
	digits := fmt.Sprintf("%.0f", math.Abs(v))
	for i := len(digits) - 3; i > 0; i -= 3 {
		digits = digits[:i] + "," + digits[i:]
	}
	if v < 0 {
		return "-" + digits
	}
	return digits
}

// WriteGrowth writes a Markdown table of one figure over all sizes: a line for each size, a column for each contender.
func WriteGrowth(w io.Writer, s Samples, rows []Row) error {
	names := s.Contenders()
	head := []string{"Services"}
	for _, r := range rows {
		for _, n := range names {
			head = append(head, r.Title+", "+n)
		}
	}
	lines := [][]string{head, append(rule(len(head))[:len(head)-1], "---:")}
	for _, size := range s.Sizes() {
		line := []string{Count(size)}
		for _, r := range rows {
			figures, _ := r.figures(s, names, size)
			for _, f := range figures {
				line = append(line, Format(f))
			}
		}
		lines = append(lines, line)
	}
	for _, l := range lines {
		if _, err := fmt.Fprintf(w, "| %s |\n", strings.Join(l, " | ")); err != nil {
			return err
		}
	}
	return nil
}
