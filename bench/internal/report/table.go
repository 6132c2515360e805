package report

import (
	"fmt"
	"io"
	"math"
	"slices"
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
	// Versus, if it is not zero, makes the bar so many times the second contender's figure, where that was measured.
	Versus float64
}

// NoBar is the bar of a row that has none.
func NoBar() float64 { return math.NaN() }

// Plain is a row without a bar: the median of the rounds.
func Plain(title, measure string) Row {
	return Row{Title: title, Measure: measure, Figure: Median, Bar: NoBar()}
}

// AtMost is a row whose median is to be no more than the bar.
func AtMost(title, measure string, bar float64) Row {
	r := Plain(title, measure)
	r.Bar = bar
	return r
}

// Times makes the bar so many times the second contender's figure.
func (r Row) Times(factor float64, atLeast bool) Row {
	r.Versus, r.AtLeast = factor, atLeast
	return r
}

// P returns a function for Row.Figure, a percentile.
func P(p float64) func([]float64) float64 {
	return func(v []float64) float64 { return Percentile(v, p) }
}

// Table is a Markdown table of one size: a line for each row that was measured, a column for each contender. The first
// contender is the one that has bars, the second the one that it is compared with; others only stand beside them.
type Table struct {
	Size int
	Rows []Row
	// OursFirst makes quotients the first contender's figure by the second's, instead of the other way round.
	OursFirst bool
	// Spread adds the least and the greatest value to each figure. It is for samples that are one value a round.
	Spread bool
}

// WriteTable writes the table of one size with the quotient of the second contender's figure by the first's.
func WriteTable(w io.Writer, s Samples, size int, rows []Row) error {
	return Table{Size: size, Rows: rows}.Write(w, s)
}

// Write writes the table.
func (t Table) Write(w io.Writer, s Samples) error {
	names := s.Contenders()
	head := append([]string{"measure"}, names...)
	if len(names) > 1 {
		if t.OursFirst {
			head = append(head, names[0]+" ÷ "+names[1])
		} else {
			head = append(head, names[1]+" ÷ "+names[0])
		}
	}
	head = append(head, "bar", "kept")
	lines := [][]string{head, rule(len(head))}
	for _, r := range t.Rows {
		if line := t.line(r, s, names); line != nil {
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

// quotientOf is NaN where it would say nothing: if one of the figures is a difference below zero or a time without an end, or
// if it is by nothing.
func (t Table) quotientOf(first, second float64) float64 {
	if !t.OursFirst {
		first, second = second, first
	}
	if first < 0 || second <= 0 || math.IsInf(first, 0) || math.IsInf(second, 0) {
		return math.NaN()
	}
	return first / second
}

// rule is the line below the headings: figures to the right.
func rule(columns int) []string {
	out := []string{"---"}
	for range columns - 2 {
		out = append(out, "---:")
	}
	return append(out, "---")
}

func (t Table) line(r Row, s Samples, names []string) []string {
	figures, some := r.figures(s, names, t.Size)
	if !some {
		return nil
	}
	line := []string{r.Title}
	for i, f := range figures {
		line = append(line, Format(f)+t.spread(s.Of(names[i], r.Measure, t.Size)))
	}
	if len(names) > 1 {
		line = append(line, Format(t.quotientOf(figures[0], figures[1])))
	}
	bar := r.bar(figures)
	return append(line, r.barText(bar), r.kept(figures[0], bar))
}

// spread says between which values a figure's samples lie, nothing if they are all the same.
func (t Table) spread(values []float64) string {
	if !t.Spread || len(values) < 2 {
		return ""
	}
	least, most := Format(slices.Min(values)), Format(slices.Max(values))
	if least == most {
		return ""
	}
	return " (" + least + " to " + most + ")"
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
	if r.Versus != 0 && len(figures) > 1 {
		return r.Versus * figures[1]
	}
	return r.Bar
}

func (r Row) barText(bar float64) string {
	sign := "≤ "
	if r.AtLeast {
		sign = "≥ "
	}
	switch {
	case math.IsNaN(bar):
		return ""
	case r.Versus != 0 && r.Versus != 1:
		return sign + Format(r.Versus) + " × = " + Format(bar)
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

// Format writes a figure with three digits that count, a dash for what was not measured, and that a time without an end was
// infinite.
func Format(v float64) string {
	switch {
	case math.IsInf(v, 1):
		return "never"
	case math.IsNaN(v) || math.IsInf(v, -1):
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

// WriteGrowth writes a Markdown table of figures over all sizes at which one of them was measured: a line for each size,
// a column for each contender. The unit says what the sizes are numbers of.
func WriteGrowth(w io.Writer, s Samples, unit string, rows []Row) error {
	s = s.measuredBy(rows)
	names := s.Contenders()
	head := []string{unit}
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

// measuredBy returns the samples of some rows.
func (s Samples) measuredBy(rows []Row) (out Samples) {
	for _, x := range s {
		if slices.ContainsFunc(rows, func(r Row) bool { return r.Measure == x.Measure }) {
			out = append(out, x)
		}
	}
	return out
}
