package apiserverproxy

import (
	_ "embed"

	"varco.dev/bench/internal/publish"
)

// method is what a reader of the report must know of how it was made.
//
//go:embed method.txt
var method string

// plotName is the file of the plots.
const plotName = "apiserver-proxy.svg"

// theReport says how the report is written.
func theReport() publish.Report {
	return publish.Report{Name: "apiserver-proxy", Text: writeText, Panels: panels()}
}
