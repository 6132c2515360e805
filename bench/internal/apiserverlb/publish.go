package apiserverlb

import (
	_ "embed"

	"varco.dev/bench/internal/publish"
)

// method is what a reader of the report must know of how it was made.
//
//go:embed method.txt
var method string

// plotName is the file of the plots.
const plotName = "apiserver-lb.svg"

// theReport says how the report is written.
func theReport() publish.Report {
	return publish.Report{Name: "apiserver-lb", Text: writeText, Panels: panels()}
}
