package kubeproxy

import (
	_ "embed"
	"fmt"
	"io"

	"varco.dev/bench/internal/publish"
	"varco.dev/bench/internal/report"
)

// method is what a reader of the report must know of how it was made.
//
//go:embed method.txt
var method string

// theReport says how the report is written.
func theReport() publish.Report {
	return publish.Report{Name: "kube-proxy", Text: writeText, Panels: panels()}
}

// plotName is the file of the plots.
const plotName = "kube-proxy.svg"

// writeText writes the tables, what they say of growth, and the method.
func writeText(w io.Writer, s report.Samples) error {
	at := Plan{Sizes: s.Sizes()}.mainSize()
	fmt.Fprintf(w, "\n## At %s Services of two endpoints\n\n", report.Count(at))
	if err := report.WriteTable(w, s, at, rows()); err != nil {
		return err
	}
	if len(s.Sizes()) > 1 {
		fmt.Fprintf(w, "\n## From %s to %s Services\n\n![plots](%s)\n\n", report.Count(s.Sizes()[0]),
			report.Count(s.Sizes()[len(s.Sizes())-1]), plotName)
		if err := report.WriteGrowth(w, s, "Services", growing()); err != nil {
			return err
		}
		fmt.Fprintln(w)
		if err := writeGrowth(w, s); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(w, "\n%s", method)
	return err
}
