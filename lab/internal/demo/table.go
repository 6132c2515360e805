package demo

import (
	"fmt"
	"io"
	"text/tabwriter"
)

// printTable prints the outcomes in aligned columns, and below them what is wrong; it returns how many of them are.
func printTable(out io.Writer, outcomes []outcome, pods int) (wrong int, err error) {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FROM\tTO\tADDRESS\tPROTOCOL\tREQUESTS\tFAILED\tSPREAD")
	var problems []string
	for _, o := range outcomes {
		spread := o.report.Spread()
		if o.refused && unexpected(o.check, o.report) == 0 {
			spread = "refused, as it must be"
		}
		failed := unexpected(o.check, o.report)
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d\t%s\n", o.from, o.kind, o.to, o.protocol, o.report.Requests, failed, spread)
		if p := o.problem(pods); p != "" {
			problems = append(problems, fmt.Sprintf("%s to %s %s (%s): %s", o.from, o.kind, o.to, o.protocol, p))
		}
	}
	if err := w.Flush(); err != nil {
		return 0, err
	}
	for _, p := range problems {
		fmt.Fprintln(out, "✗", p)
	}
	return len(problems), nil
}
