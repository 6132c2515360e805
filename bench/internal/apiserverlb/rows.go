package apiserverlb

import (
	"fmt"
	"io"
	"slices"

	"varco.dev/bench/internal/report"
)

func getRows() []report.Row {
	return []report.Row{
		report.Plain("requests per second", getRate).Times(0.95, true),
		report.Plain("latency, p50, ms", getP50),
		report.Plain("latency, p99, ms", getP99),
		report.Plain("CPU of the balancer for a request, µs", getCPU),
	}
}

func connectRows() []report.Row {
	return []report.Row{
		report.Plain("connections per second", connectRate).Times(0.8, true),
		report.Plain("latency, p50, ms", connectP50),
		report.Plain("latency, p99, ms", connectP99),
		report.Plain("CPU of the balancer for a connection, µs", connectCPU),
	}
}

func bulkRows() []report.Row {
	return []report.Row{
		report.Plain("CPU of the balancer for a GiB, s", bulkCPU).Times(0.55, false),
		report.Plain("Gbit/s", bulkRate),
	}
}

func idleRows() []report.Row {
	return []report.Row{
		report.AtMost("memory for each, KiB", idleKiB, 12),
		report.AtMost("descriptors for each", idleFDs, 2),
	}
}

// Bars of faults.
const (
	movedBar     = 6 // s
	failedBar    = 1 // %
	failedForBar = 1 // s
	spreadBar    = 180
	spreadEndBar = 1 // % of connections a second
)

func faultRows(fault string) []report.Row {
	return []report.Row{
		report.AtMost("the last of its watches has moved on after, s", when(fault, moved), movedBar),
		report.AtMost("failed new connections, %", when(fault, failed), failedBar),
		report.AtMost("time in which they fail, s", when(fault, failedFor), failedForBar),
	}
}

func redRows() []report.Row {
	return []report.Row{
		report.AtMost("failed new connections, %", redFailed, failedBar),
		report.AtMost("watches that ended, %", redEnded, 0),
	}
}

func rollRows() []report.Row {
	return []report.Row{
		report.AtMost("failed requests", rollFailed, 0),
		report.Plain("– that client-go does not repeat by itself", rollFinal),
		report.Plain("– of", rollCount),
		report.Plain("the longest that was answered, ms", rollLongest),
	}
}

func spreadRows() []report.Row {
	return []report.Row{
		report.AtMost("the API servers are within 20 % after, s", spreadTime, spreadBar),
		report.AtMost("connections closed meanwhile, % a second", spreadEnds, spreadEndBar),
		report.Plain("largest less smallest at the end, % of the mean", spreadLast),
	}
}

// panels are the plots.
func panels() []report.Panel {
	const connections = "Connections"
	return []report.Panel{
		{Title: "Small requests per second", Axis: connections, Measure: getRate, Figure: report.Median},
		{Title: "CPU of the balancer for a request, µs", Axis: connections, Measure: getCPU, Figure: report.Median},
		{Title: "Small requests: p99, ms", Axis: connections, Measure: getP99, Figure: report.Median},
		{Title: "CPU of the balancer for a GiB, s", Axis: connections, Measure: bulkCPU, Figure: report.Median},
	}
}

// part is one table for each size of the report, and one of all sizes if there are more.
type part struct {
	title   func(size string) string
	rows    []report.Row
	mains   []int // sizes that have tables; nil for all
	growing []report.Row
}

func around(before, after string) func(string) string {
	return func(size string) string { return before + size + after }
}

func exactly(title string) func(string) string { return func(string) string { return title } }

func parts() []part {
	return []part{
		{around("Small requests over ", " kept connections"), getRows(), []int{fewConnections, manyConnections}, []report.Row{
			report.Plain("requests per second", getRate), report.Plain("p99, ms", getP99), report.Plain("CPU, µs", getCPU)}},
		{around("New connections, ", " at a time"), connectRows(), nil, nil},
		{around("Bulk, connections: ", ""), bulkRows(), nil, nil},
		{around("", " idle connections"), idleRows(), nil, nil},
		{exactly("An API server hangs (SIGSTOP)"), faultRows(groupHung), nil, nil},
		{exactly("The cable of an API server is cut"), faultRows(groupCut), nil, nil},
		{exactly("No API server is ready: etcd hangs"), redRows(), nil, nil},
		{exactly("Three API servers restart, one after the other"), rollRows(), nil, nil},
		{exactly("The last of them is back"), spreadRows(), nil, nil},
	}
}

// of are the samples of a part, so that only contenders that it was measured of have columns, in the order of all.
func (p part) of(s report.Samples) (out report.Samples) {
	for _, name := range contenders {
		for _, x := range s {
			has := slices.ContainsFunc(p.rows, func(r report.Row) bool { return r.Measure == x.Measure })
			if x.Contender == name && has {
				out = append(out, x)
			}
		}
	}
	return out
}

// barred are rows with the bars that can be looked at: all are varco's, and some are against HAProxy.
func barred(rows []report.Row, names []string) (out []report.Row) {
	for _, r := range rows {
		switch {
		case names[0] != varco:
			r.Bar, r.Versus = report.NoBar(), 0
		case len(names) > 1 && names[1] != haproxy:
			r.Versus = 0
		}
		out = append(out, r)
	}
	return out
}

// tables are the sizes that have one.
func (p part) tables(sizes []int) []int {
	if p.mains == nil {
		return sizes
	}
	some := slices.DeleteFunc(slices.Clone(sizes), func(n int) bool { return !slices.Contains(p.mains, n) })
	if len(some) == 0 {
		return sizes
	}
	return some
}

// writeText writes the tables and the method.
func writeText(w io.Writer, s report.Samples) error {
	plots := fmt.Sprintf("\n![plots](%s)\n\n", plotName)
	for _, p := range parts() {
		s := p.of(s)
		sizes := s.Sizes()
		if len(sizes) == 0 {
			continue
		}
		for _, size := range p.tables(sizes) {
			fmt.Fprintf(w, "\n## %s\n\n", p.title(report.Count(size)))
			if err := (report.Table{Size: size, Rows: barred(p.rows, s.Contenders()), OursFirst: true, Spread: true}).Write(w, s); err != nil {
				return err
			}
		}
		if len(sizes) == 1 || p.growing == nil {
			continue
		}
		fmt.Fprint(w, plots)
		plots = ""
		if err := report.WriteGrowth(w, s, "connections", p.growing); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\n%s", method)
	return err
}
