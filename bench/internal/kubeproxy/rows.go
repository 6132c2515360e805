package kubeproxy

import (
	"fmt"
	"io"

	"varco.dev/bench/internal/report"
)

// Bars of growth, from the smallest size to the largest.
const (
	// cpuGrowth is how much the processor time per change may grow: it is to be the same at any size.
	cpuGrowth = 1.5
	// coldGrowth is how much more than in proportion a cold start may grow.
	coldGrowth = 1.1
)

// rows are the lines of the table of one size. The bars are varco's, at mainSize.
func rows() []report.Row {
	p50, p99, none := report.P(50), report.P(99), report.NoBar()
	return []report.Row{
		{Title: "change → packet, idle, p50, ms", Measure: changeMillis, Figure: p50, Bar: 5},
		{Title: "change → packet, idle, p99, ms", Measure: changeMillis, Figure: p99, Bar: 20},
		{Title: "– of these from the API's answer on, p50, ms", Measure: answerMillis, Figure: p50, Bar: none},
		{Title: "– of these from the API's answer on, p99, ms", Measure: answerMillis, Figure: p99, Bar: none},
		{Title: "– the API alone, change → watch event, p50, ms", Measure: watchedMillis, Figure: p50, Bar: none},
		{Title: "– the API alone, change → watch event, p99, ms", Measure: watchedMillis, Figure: p99, Bar: none},
		{Title: "change → packet under load, p50, ms", Measure: loadedMillis, Figure: p50, Bar: 10},
		{Title: "change → packet under load, p99, ms", Measure: loadedMillis, Figure: p99, Bar: 50},
		{Title: "– of these from the API's answer on, p50, ms", Measure: loadedAnswer, Figure: p50, Bar: none},
		{Title: "– of these from the API's answer on, p99, ms", Measure: loadedAnswer, Figure: p99, Bar: none},
		{Title: "– the API alone, change → watch event, p50, ms", Measure: loadedWatched, Figure: p50, Bar: none},
		{Title: "– the API alone, change → watch event, p99, ms", Measure: loadedWatched, Figure: p99, Bar: none},
		{Title: "– changes per second", Measure: loadedRate, Figure: report.Median, Bar: none},
		{Title: "CPU per change, one at a time, ms", Measure: changeCPU, Figure: report.Median, Bar: 1},
		{Title: "CPU per change under load, ms", Measure: loadedCPU, Figure: report.Median, Bar: none},
		{Title: "cold start, s", Measure: coldSeconds, Figure: report.Median, Bar: 1.5},
		{Title: "Services that do not answer after it", Measure: unanswered, Figure: report.P(100), Bar: 0},
		{Title: "resident memory, MiB", Measure: rssMiB, Figure: report.Median, Bar: 80},
		{Title: "– its peak, MiB", Measure: peakMiB, Figure: report.Median, Bar: none},
		{Title: "connect by ClusterIP, p50, µs", Measure: clusterIPP50, Figure: report.Median, Bar: none, Versus: 1},
		{Title: "connect by ClusterIP, p99, µs", Measure: clusterIPP99, Figure: report.Median, Bar: none, Versus: 1},
		{Title: "– more than directly, p50, µs", Measure: addedP50, Figure: report.Median, Bar: none},
		{Title: "– connect directly, p50, µs", Measure: directP50, Figure: report.Median, Bar: none},
		{Title: "– connect directly, p99, µs", Measure: directP99, Figure: report.Median, Bar: none},
		{Title: "connections per second, 100 endpoints", Measure: plainRate, Figure: report.Median, Bar: none},
		{Title: "– with session affinity, of that", Measure: stickyQuotient, Figure: report.Median, Bar: 0.9, AtLeast: true},
		{Title: "– connections that it has sent to another endpoint", Measure: stickyStrays, Figure: report.P(100), Bar: 0},
	}
}

// growing are the columns of the table of all sizes.
func growing() []report.Row {
	return []report.Row{
		{Title: "cold start, s", Measure: coldSeconds, Figure: report.Median},
		{Title: "CPU per change, ms", Measure: changeCPU, Figure: report.Median},
		{Title: "change → packet, p50, ms", Measure: changeMillis, Figure: report.P(50)},
		{Title: "memory, MiB", Measure: rssMiB, Figure: report.Median},
		{Title: "connect by ClusterIP, p50, µs", Measure: clusterIPP50, Figure: report.Median},
	}
}

// panels are the plots.
func panels() []report.Panel {
	return []report.Panel{
		{Title: "Change → packet, p50, ms", Axis: "Services", Measure: changeMillis, Figure: report.P(50)},
		{Title: "CPU per change, ms", Axis: "Services", Measure: changeCPU, Figure: report.Median},
		{Title: "Cold start, s", Axis: "Services", Measure: coldSeconds, Figure: report.Median},
		{Title: "Resident memory, MiB", Axis: "Services", Measure: rssMiB, Figure: report.Median},
	}
}

// writeGrowth says how the first contender's figures grow, and whether they may.
func writeGrowth(w io.Writer, s report.Samples) error {
	sizes, name := s.Sizes(), s.Contenders()[0]
	least, most := sizes[0], sizes[len(sizes)-1]
	figure := func(measure string, size int) float64 { return report.Median(s.Of(name, measure, size)) }
	cpu := figure(changeCPU, most) / figure(changeCPU, least)
	from := mainSize
	if most <= mainSize {
		from = least
	}
	cold := figure(coldSeconds, most) / figure(coldSeconds, from)
	proportion := float64(most) / float64(from)
	_, err := fmt.Fprintf(w, "- CPU per change of %s at %s Services is %s times that at %s (bar: %s times): %s\n"+
		"- its cold start at %s Services takes %s times that at %s, which are %s times fewer (bar: %s times more than in proportion): %s\n",
		name, report.Count(most), report.Format(cpu), report.Count(least), report.Format(cpuGrowth),
		kept(cpu, cpuGrowth), report.Count(most), report.Format(cold), report.Count(from),
		report.Format(proportion), report.Format(coldGrowth), kept(cold, proportion*coldGrowth))
	return err
}

func kept(figure, bar float64) string {
	switch {
	case figure <= bar:
		return "kept"
	case figure > bar:
		return "**not kept**"
	}
	return "not measured"
}
