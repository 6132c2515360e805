package kubectlproxy

import (
	_ "embed"

	"varco.dev/bench/internal/publish"
)

// method is what a reader of the report must know of how it was made.
//
//go:embed method.txt
var method string

// plotName is the file of the plots.
const plotName = "kubectl-proxy.svg"

// theReport says how the report is written.
func theReport() publish.Report {
	return publish.Report{Name: "kubectl-proxy", Text: writeText, Panels: panels()}
}
