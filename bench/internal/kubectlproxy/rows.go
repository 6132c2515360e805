package kubectlproxy

import (
	"fmt"
	"io"
	"slices"

	"varco.dev/bench/internal/report"
)

func getRows() []report.Row {
	return []report.Row{
		report.Plain("requests per second", getRate).Times(1.5, true),
		report.Plain("CPU of the proxy per request, µs", getCPU).Times(0.65, false),
		report.Plain("– CPU of the server per request, µs", getBackendCPU),
		report.Plain("latency, p50, ms", getP50),
		report.Plain("latency, p99, ms", getP99),
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
			report.AtMost(kind.title+"event, p99, more than directly, ms", kind.name(addedP99), kind.bar),
			report.Plain(kind.title+"– event, p99, ms", kind.name(viaP99)),
			report.Plain(kind.title+"– event directly, p99, ms", kind.name(directP99)),
			report.Plain(kind.title+"event, p50, more than directly, ms", kind.name(addedP50)),
			report.Plain(kind.title+"– event, p50, ms", kind.name(viaP50)),
			report.Plain(kind.title+"– event directly, p50, ms", kind.name(directP50)),
			report.Plain(kind.title+"– events per second", kind.name(eventRate)),
			report.Plain(kind.title+"CPU of the proxy per event, µs", kind.name(eventCPU)),
		)
	}
	return append(out, report.Plain("resident memory, MiB", watchMiB))
}

func bodyRows() []report.Row {
	return []report.Row{
		report.Plain("of known length, MiB/s", bodyRate).Times(1.5, true),
		report.AtMost("– extra memory, MiB", bodyMiB, 16),
		report.Plain("– CPU of the proxy, s", bodyCPU),
		report.Plain("chunked, MiB/s", chunkRate).Times(1.5, true),
		report.AtMost("– extra memory, MiB", chunkMiB, 16),
		report.Plain("upload, MiB/s", uploadRate),
		report.Plain("– extra memory, MiB", uploadMiB),
		report.Plain("resident memory before, MiB", idleMiB),
	}
}

func startRows() []report.Row {
	return []report.Row{report.AtMost("start to first answer, ms", startMillis, 100)}
}

// growing are the columns of the table of all numbers of connections.
func growing() []report.Row {
	return []report.Row{
		report.Plain("requests per second", getRate),
		report.Plain("CPU per request, µs", getCPU),
		report.Plain("p50, ms", getP50),
		report.Plain("p99, ms", getP99),
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
	if sizes := s.SizesOf(getRate); len(sizes) > 0 {
		at := sizes[len(sizes)-1]
		if slices.Contains(sizes, mainConnections) {
			at = mainConnections
		}
		out = append(out, part{fmt.Sprintf("Small GETs on %s connections", report.Count(at)), at, getRows()})
	}
	for _, at := range s.SizesOf(viaP99) {
		title := fmt.Sprintf("%s watches of %d events a second", report.Count(at), eventsPerSecond)
		out = append(out, part{title, at, watchRows()})
	}
	if len(s.SizesOf(bodyRate)) > 0 {
		out = append(out, part{"A large body", one, bodyRows()})
	}
	if len(s.SizesOf(startMillis)) > 0 {
		out = append(out, part{"Start", one, startRows()})
	}
	return out
}

// writeText writes the tables and the method.
func writeText(w io.Writer, s report.Samples) error {
	for _, p := range parts(s) {
		fmt.Fprintf(w, "\n## %s\n\n", p.title)
		if err := (report.Table{Size: p.size, Rows: p.rows, OursFirst: true, Spread: true}).Write(w, s); err != nil {
			return err
		}
	}
	if sizes := s.SizesOf(getRate); len(sizes) > 1 {
		fmt.Fprintf(w, "\n## From %s to %s connections\n\n![plots](%s)\n\n", report.Count(sizes[0]),
			report.Count(sizes[len(sizes)-1]), plotName)
		if err := report.WriteGrowth(w, s, "connections", growing()); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\n%s", method)
	return err
}
