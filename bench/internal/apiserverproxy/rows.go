package apiserverproxy

import (
	"fmt"
	"io"
	"slices"

	"varco.dev/bench/internal/report"
)

func getRows() []report.Row {
	return []report.Row{
		report.Plain("requests per second", getRate).Times(2, true),
		report.AtMost("largest share of one of ten endpoints by the smallest", spread, 1.1),
		report.Plain("latency, p50, ms", getP50),
		report.Plain("latency, p99, ms", getP99),
		report.Plain("CPU per request, µs", getCPU),
		report.Plain("– of the front", of(getCPU, processFront)),
		report.Plain("– of kube-apiserver", of(getCPU, processAPI)),
		report.Plain("– of etcd", of(getCPU, processEtcd)),
		report.Plain("requests per second, with a token instead of a certificate", tokenRate),
		report.AtMost("one of ten endpoints is gone: failed requests, %", deadFailed, 0),
		report.Plain("– answered requests per second", deadRate),
		report.Plain("– their latency, p99, ms", deadP99),
	}
}

func paceRows() []report.Row {
	return []report.Row{
		report.Plain("requests per second", pacePerSec),
		report.Plain("latency, p99, ms", paceP99).Times(0.5, false),
		report.Plain("latency, p50, ms", paceP50),
	}
}

func pageRows() []report.Row {
	return []report.Row{
		report.AtMost("extra live heap, MiB", pageHeapMiB, 1),
		report.Plain("extra resident memory at its peak, MiB", pageMiB),
		report.Plain("MiB/s", pageRate),
	}
}

// atOnce is how many milliseconds are at once, for a page whose first part its target sends at once.
const atOnce = 100

func partRows() []report.Row {
	return []report.Row{
		report.AtMost("first byte, ms", firstMillis, atOnce),
		report.Plain("last byte, ms", wholeMillis),
	}
}

func socketRows() []report.Row {
	return []report.Row{
		report.AtMost("resident memory for each, KiB", socketKiB, 64),
		report.Plain("– heap and stacks in use, KiB", socketUsedKiB),
	}
}

func flowRows() []report.Row {
	return []report.Row{
		report.Plain("CPU of kube-apiserver, % of a processor", flowAPI),
		report.Plain("CPU of the front, %", flowFront),
		report.Plain("CPU of both and etcd, %", flowCPU),
		report.Plain("– s for a GB", flowSeconds),
		report.Plain("Mbit/s", flowRate),
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
			report.Plain("requests per second", getRate), report.Plain("CPU per request, µs", getCPU), report.Plain("p99, ms", getP99)}},
		{around("Small GETs to a Service at ", " % of what kube-apiserver answers at most"), "load, %", paceP99, mainLoad, paceRows(), []report.Row{
			report.Plain("requests per second", pacePerSec), report.Plain("p50, ms", paceP50), report.Plain("p99, ms", paceP99)}},
		{around("An HTML page of ", " MiB"), "", pageRate, mainPage, pageRows(), nil},
		{func(string) string { return "An HTML page that comes in parts" }, "", firstMillis, one, partRows(), nil},
		{around("", " idle WebSockets"), "", socketKiB, mainSockets, socketRows(), nil},
		{around("", " Mbit/s for one client"), "Mbit/s", flowCPU, mainFlow, flowRows(), []report.Row{
			report.Plain("CPU of kube-apiserver, %", flowAPI), report.Plain("of the front, %", flowFront), report.Plain("of all, %", flowCPU)}},
	}
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
		sizes := s.SizesOf(p.measure)
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
