package apiserverproxy

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

// atMost is a row with a bar; times makes it relative to the second contender.
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
		times(row("requests per second", getRate), 2, true),
		atMost("largest share of one of ten endpoints by the smallest", spread, 1.1),
		row("latency, p50, ms", getP50),
		row("latency, p99, ms", getP99),
		row("CPU per request, µs", getCPU),
		row("– of the front", of(getCPU, processFront)),
		row("– of kube-apiserver", of(getCPU, processAPI)),
		row("– of etcd", of(getCPU, processEtcd)),
		row("requests per second, with a token instead of a certificate", tokenRate),
		atMost("one of ten endpoints is gone: failed requests, %", deadFailed, 0),
		row("– answered requests per second", deadRate),
		row("– their latency, p99, ms", deadP99),
	}
}

func paceRows() []report.Row {
	return []report.Row{
		row("requests per second", pacePerSec),
		times(row("latency, p99, ms", paceP99), 0.5, false),
		row("latency, p50, ms", paceP50),
	}
}

func pageRows() []report.Row {
	return []report.Row{
		atMost("extra live heap, MiB", pageHeapMiB, 1),
		row("extra resident memory at its peak, MiB", pageMiB),
		row("MiB/s", pageRate),
	}
}

// atOnce is how many milliseconds are at once, for a page whose first part its target sends at once.
const atOnce = 100

func partRows() []report.Row {
	return []report.Row{
		atMost("first byte, ms", firstMillis, atOnce),
		row("last byte, ms", wholeMillis),
	}
}

func socketRows() []report.Row {
	return []report.Row{
		atMost("resident memory for each, KiB", socketKiB, 64),
		row("– heap and stacks in use, KiB", socketUsedKiB),
	}
}

func flowRows() []report.Row {
	return []report.Row{
		row("CPU of kube-apiserver, % of a processor", flowAPI),
		row("CPU of the front, %", flowFront),
		row("CPU of both and etcd, %", flowCPU),
		row("– s for a GB", flowSeconds),
		row("Mbit/s", flowRate),
	}
}

// panels are the plots.
func panels() []report.Panel {
	const connections, load, flow = "Connections", "% of what kube-apiserver answers at most", "Mbit/s"
	return []report.Panel{
		{Title: "Small GETs per second", Axis: connections, Measure: getRate, Figure: report.Median},
		{Title: "CPU of all per GET, µs", Axis: connections, Measure: getCPU, Figure: report.Median},
		{Title: "Paced GETs: p99, ms", Axis: load, Measure: paceP99, Figure: report.Median},
		{Title: "CPU of kube-apiserver while bytes flow, %", Axis: flow, Measure: flowAPI, Figure: report.Median},
		{Title: "CPU of all while bytes flow, %", Axis: flow, Measure: flowCPU, Figure: report.Median},
	}
}

// part is one table of the report: of one size, and of all of them if they are more.
type part struct {
	title   func(size string) string
	unit    string
	measure string // one of what is measured whenever any of it is
	main    int
	rows    []report.Row
	growing []report.Row
}

func around(before, after string) func(string) string {
	return func(size string) string { return before + size + after }
}

func parts() []part {
	return []part{
		{around("Small GETs to a Service on ", " connections"), "connections", getRate, mainConnections, getRows(), []report.Row{
			row("requests per second", getRate), row("CPU per request, µs", getCPU), row("p99, ms", getP99)}},
		{around("Small GETs to a Service at ", " % of what kube-apiserver answers at most"), "load, %", paceP99, mainLoad, paceRows(), []report.Row{
			row("requests per second", pacePerSec), row("p50, ms", paceP50), row("p99, ms", paceP99)}},
		{around("An HTML page of ", " MiB"), "", pageRate, mainPage, pageRows(), nil},
		{func(string) string { return "An HTML page that comes in parts" }, "", firstMillis, one, partRows(), nil},
		{around("", " idle WebSockets"), "", socketKiB, mainSockets, socketRows(), nil},
		{around("", " Mbit/s for one client"), "Mbit/s", flowCPU, mainFlow, flowRows(), []report.Row{
			row("CPU of kube-apiserver, %", flowAPI), row("of the front, %", flowFront), row("of all, %", flowCPU)}},
	}
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

// at is the size that a part's table is of: the one that bars are for, or the largest.
func (p part) at(sizes []int) int {
	if slices.Contains(sizes, p.main) {
		return p.main
	}
	return sizes[len(sizes)-1]
}

// writeText writes the tables and the method.
func writeText(w io.Writer, s report.Samples) error {
	plots := fmt.Sprintf("\n![plots](%s)\n", plotName)
	for _, p := range parts() {
		sizes := sizesOf(s, p.measure)
		if len(sizes) == 0 {
			continue
		}
		at := p.at(sizes)
		fmt.Fprintf(w, "\n## %s\n\n", p.title(report.Count(at)))
		if err := (report.Table{Size: at, Rows: p.rows, OursFirst: true, Spread: true}).Write(w, s); err != nil {
			return err
		}
		if len(sizes) == 1 || p.growing == nil {
			continue
		}
		fmt.Fprintln(w, plots)
		plots = ""
		if err := report.WriteGrowth(w, s, p.unit, p.growing); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\n%s", method)
	return err
}
