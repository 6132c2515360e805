package report

import (
	"cmp"
	"fmt"
	"html"
	"io"
	"math"
	"slices"
	"strings"
)

// Panel is one plot: lines over sizes, both axes logarithmic.
type Panel struct {
	Title string
	// Axis says what the sizes are numbers of.
	Axis string
	// Measure names the samples; Figure makes one value of those of one size.
	Measure string
	Figure  func([]float64) float64
}

// Sizes of a plot, in the units of the SVG.
const (
	panelWidth, panelHeight = 450, 280
	left, right, top, below = 64, 114, 40, 40 // names of contenders are on the right
	labelHeight             = 14
	panelsPerRow            = 2
)

// style serves light and dark: the figure takes the page's background, and its colours are readable on both.
const style = `text{font:12px system-ui,sans-serif;fill:#444}.title{font-size:13px;font-weight:600;fill:#222}` +
	`.grid{stroke:#ddd}.c0{stroke:#0a6ed1;fill:#0a6ed1}.c1{stroke:#c4540a;fill:#c4540a}.c2{stroke:#5b8a00;fill:#5b8a00}.c3{stroke:#777;fill:#777}` +
	`polyline{fill:none!important;stroke-width:2}text.c0,text.c1,text.c2,text.c3{stroke:none;font-weight:600}` +
	`@media(prefers-color-scheme:dark){text{fill:#bbb}.title{fill:#eee}.grid{stroke:#444}` +
	`.c0{stroke:#5cb0ff;fill:#5cb0ff}.c1{stroke:#ff9a52;fill:#ff9a52}.c2{stroke:#a3d14a;fill:#a3d14a}.c3{stroke:#999;fill:#999}}`

// WriteSVG draws all panels, two in a row.
func WriteSVG(w io.Writer, s Samples, panels []Panel) error {
	rows := (len(panels) + panelsPerRow - 1) / panelsPerRow
	var b strings.Builder
	fmt.Fprintf(&b, `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 %d %d" role="img"><style>%s</style>`+"\n",
		panelsPerRow*panelWidth, rows*panelHeight, style)
	for i, p := range panels {
		fmt.Fprintf(&b, `<g transform="translate(%d,%d)">`+"\n", i%panelsPerRow*panelWidth, i/panelsPerRow*panelHeight)
		p.draw(&b, s)
		b.WriteString("</g>\n")
	}
	b.WriteString("</svg>\n")
	_, err := io.WriteString(w, b.String())
	return err
}

// line is what a panel draws for one contender.
type line struct {
	name   string
	points [][2]float64 // size, figure
}

func (p Panel) lines(s Samples) (out []line) {
	for _, name := range s.Contenders() {
		l := line{name: name}
		for _, size := range s.Sizes() {
			if y := p.Figure(s.Of(name, p.Measure, size)); y > 0 { // NaN is not
				l.points = append(l.points, [2]float64{float64(size), y})
			}
		}
		out = append(out, l)
	}
	return out
}

func (p Panel) draw(b *strings.Builder, s Samples) {
	fmt.Fprintf(b, `<text class="title" x="%d" y="22">%s</text>`+"\n", left, html.EscapeString(p.Title))
	lines := p.lines(s)
	x, y := axes(lines)
	for _, v := range y.marks() {
		at := y.at(v)
		fmt.Fprintf(b, `<path class="grid" d="M%d %.1fH%d"/><text x="%d" y="%.1f" text-anchor="end">%s</text>`+"\n",
			left, at, panelWidth-right, left-6, at+4, Format(v))
	}
	for _, size := range s.measuredBy([]Row{{Measure: p.Measure}}).Sizes() {
		fmt.Fprintf(b, `<text x="%.1f" y="%d" text-anchor="middle">%s</text>`+"\n", x.at(float64(size)), panelHeight-below+18,
			Count(size))
	}
	fmt.Fprintf(b, `<text x="%d" y="%d" text-anchor="middle">%s</text>`+"\n", (left+panelWidth-right)/2, panelHeight-6,
		html.EscapeString(p.Axis))
	names := labels(lines, y)
	for i, l := range lines {
		l.draw(b, i, p.Axis, x, y, names[i])
	}
}

// labels returns where the names of lines are written: at their ends, moved down where they would cover another.
func labels(lines []line, y axis) []float64 {
	out, order := make([]float64, len(lines)), make([]int, 0, len(lines))
	for i, l := range lines {
		if len(l.points) > 0 {
			out[i] = y.at(l.points[len(l.points)-1][1])
			order = append(order, i)
		}
	}
	slices.SortStableFunc(order, func(i, j int) int { return cmp.Compare(out[i], out[j]) })
	for n := 1; n < len(order); n++ {
		out[order[n]] = max(out[order[n]], out[order[n-1]]+labelHeight)
	}
	return out
}

func (l line) draw(b *strings.Builder, number int, unit string, x, y axis, label float64) {
	if len(l.points) == 0 {
		return
	}
	var path strings.Builder
	for _, pt := range l.points {
		fmt.Fprintf(&path, "%.1f,%.1f ", x.at(pt[0]), y.at(pt[1]))
		fmt.Fprintf(b, `<circle class="c%d" cx="%.1f" cy="%.1f" r="3"><title>%s, %s %s: %s</title></circle>`+"\n", number,
			x.at(pt[0]), y.at(pt[1]), html.EscapeString(l.name), Count(int(pt[0])), html.EscapeString(unit), Format(pt[1]))
	}
	last := l.points[len(l.points)-1]
	fmt.Fprintf(b, `<polyline class="c%d" points="%s"/><text class="c%d" x="%.1f" y="%.1f">%s</text>`+"\n", number,
		strings.TrimSpace(path.String()), number, x.at(last[0])+8, label+4, html.EscapeString(l.name))
}

// axis maps values between low and high, by their logarithms, to places between from and to.
type axis struct{ low, high, from, to float64 }

func (a axis) at(v float64) float64 {
	if a.high <= a.low {
		return (a.from + a.to) / 2
	}
	return a.from + (a.to-a.from)*math.Log(v/a.low)/math.Log(a.high/a.low)
}

// marks are the powers of ten of the axis.
func (a axis) marks() (out []float64) {
	for v := a.low; v <= a.high*1.001; v *= 10 {
		out = append(out, v)
	}
	return out
}

// axes fit all points: x from the least size to the greatest, y between powers of ten.
func axes(lines []line) (x, y axis) {
	x = axis{math.Inf(1), 0, left, panelWidth - right}
	y = axis{math.Inf(1), 0, panelHeight - below, top}
	for _, l := range lines {
		for _, pt := range l.points {
			x.low, x.high = min(x.low, pt[0]), max(x.high, pt[0])
			y.low, y.high = min(y.low, pt[1]), max(y.high, pt[1])
		}
	}
	if y.high == 0 {
		y.low, y.high = 1, 1 // nothing was measured
	}
	y.low = math.Pow(10, math.Floor(math.Log10(y.low)))
	y.high = max(math.Pow(10, math.Ceil(math.Log10(y.high))), y.low*10)
	return x, y
}
