package kubectlproxy

import (
	"fmt"
	"io"
	"slices"

	"varco.dev/bench/internal/report"
)

// row is a row without a bar: the median of the rounds.
func row(title, measure string) report.Row {
	return report.Row{Title: title, Measure: measure, Figure: report.Median, Bar: report.NoBar()}
}

// atMost and atLeast are rows with a bar; times makes it relative to the other contender.
func atMost(title, measure string, bar float64) report.Row {
	r := row(title, measure)
	r.Bar = bar
	return r
}

func times(r report.Row, factor float64, atLeast bool) report.Row {
	r.Versus, r.AtLeast = factor, atLeast
	return r
}

func getRows() []report.Row {
	return []report.Row{
		times(row("requests per second", getRate), 1.5, true),
		times(row("CPU of the proxy per request, µs", getCPU), 0.65, false),
		row("– CPU of the server per request, µs", getBackendCPU),
		row("latency, p50, ms", getP50),
		row("latency, p99, ms", getP99),
	}
}

// watchRows are of events at times of their own, or of those at the same time, which have no bar.
func watchRows() []report.Row {
	var out []report.Row
	for _, kind := range []struct {
		title string
		name  func(string) string
		bar   float64
	}{
		{"", func(measure string) string { return measure }, 1},
		{"all at once: ", together, report.NoBar()},
	} {
		out = append(out,
			atMost(kind.title+"event, p99, more than directly, ms", kind.name(addedP99), kind.bar),
			row(kind.title+"– event, p99, ms", kind.name(viaP99)),
			row(kind.title+"– event directly, p99, ms", kind.name(directP99)),
			row(kind.title+"event, p50, more than directly, ms", kind.name(addedP50)),
			row(kind.title+"– event, p50, ms", kind.name(viaP50)),
			row(kind.title+"– event directly, p50, ms", kind.name(directP50)),
			row(kind.title+"– events per second", kind.name(eventRate)),
			row(kind.title+"CPU of the proxy per event, µs", kind.name(eventCPU)),
		)
	}
	return append(out, row("resident memory, MiB", watchMiB))
}

func bodyRows() []report.Row {
	return []report.Row{
		times(row("of known length, MiB/s", bodyRate), 1.5, true),
		atMost("– extra memory, MiB", bodyMiB, 16),
		row("– CPU of the proxy, s", bodyCPU),
		times(row("chunked, MiB/s", chunkRate), 1.5, true),
		atMost("– extra memory, MiB", chunkMiB, 16),
		row("upload, MiB/s", uploadRate),
		row("– extra memory, MiB", uploadMiB),
		row("resident memory before, MiB", idleMiB),
	}
}

func startRows() []report.Row {
	return []report.Row{atMost("start to first answer, ms", startMillis, 100)}
}

// growing are the columns of the table of all numbers of connections.
func growing() []report.Row {
	return []report.Row{
		row("requests per second", getRate),
		row("CPU per request, µs", getCPU),
		row("p50, ms", getP50),
		row("p99, ms", getP99),
	}
}

// panels are the plots.
func panels() []report.Panel {
	const connections = "Connections"
	return []report.Panel{
		{Title: "Small GETs per second", Axis: connections, Measure: getRate, Figure: report.Median},
		{Title: "CPU of the proxy per GET, µs", Axis: connections, Measure: getCPU, Figure: report.Median},
		{Title: "GET p50, ms", Axis: connections, Measure: getP50, Figure: report.Median},
		{Title: "GET p99, ms", Axis: connections, Measure: getP99, Figure: report.Median},
	}
}

// part is one table of the report.
type part struct {
	title string
	size  int
	rows  []report.Row
}

// parts are the tables of what was measured.
func parts(s report.Samples) (out []part) {
	if sizes := sizesOf(s, getRate); len(sizes) > 0 {
		at := sizes[len(sizes)-1]
		if slices.Contains(sizes, mainConnections) {
			at = mainConnections
		}
		out = append(out, part{fmt.Sprintf("Small GETs on %s connections", report.Count(at)), at, getRows()})
	}
	for _, at := range sizesOf(s, viaP99) {
		title := fmt.Sprintf("%s watches of %d events a second", report.Count(at), eventsPerSecond)
		out = append(out, part{title, at, watchRows()})
	}
	if len(sizesOf(s, bodyRate)) > 0 {
		out = append(out, part{"A large body", one, bodyRows()})
	}
	if len(sizesOf(s, startMillis)) > 0 {
		out = append(out, part{"Start", one, startRows()})
	}
	return out
}

func sizesOf(s report.Samples, measure string) []int {
	var own report.Samples
	for _, x := range s {
		if x.Measure == measure {
			own = append(own, x)
		}
	}
	return own.Sizes()
}

// writeText writes the tables and the method.
func writeText(w io.Writer, s report.Samples) error {
	for _, p := range parts(s) {
		fmt.Fprintf(w, "\n## %s\n\n", p.title)
		if err := (report.Table{Size: p.size, Rows: p.rows, OursFirst: true, Spread: true}).Write(w, s); err != nil {
			return err
		}
	}
	if sizes := sizesOf(s, getRate); len(sizes) > 1 {
		fmt.Fprintf(w, "\n## From %s to %s connections\n\n![plots](%s)\n\n", report.Count(sizes[0]),
			report.Count(sizes[len(sizes)-1]), plotName)
		if err := report.WriteGrowth(w, s, "connections", growing()); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\n%s", method)
	return err
}
