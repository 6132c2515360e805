package kubeproxy

import (
	"bytes"
	_ "embed"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"varco.dev/bench/internal/report"
)

// method is what a reader of the report must know of how it was made.
//
//go:embed method.txt
var method string

// Names of the files of a report.
const (
	reportName = "kube-proxy.md"
	plotName   = "kube-proxy.svg"
	rawName    = "kube-proxy.csv"
)

// publish writes the report: to out and, if there is a folder for it, to files.
func (o *options) publish(out io.Writer, facts []report.Fact, s report.Samples) error {
	var text, plot, raw bytes.Buffer
	if err := writeReport(&text, facts, s); err != nil {
		return err
	}
	if _, err := out.Write(text.Bytes()); err != nil || o.out == "" {
		return err
	}
	if err := report.WriteSVG(&plot, s, panels()); err != nil {
		return err
	}
	if err := report.WriteCSV(&raw, facts, s); err != nil {
		return err
	}
	if err := os.MkdirAll(o.out, 0o755); err != nil {
		return fmt.Errorf("make folder of the report: %w", err)
	}
	for name, b := range map[string]*bytes.Buffer{reportName: &text, plotName: &plot, rawName: &raw} {
		if err := os.WriteFile(filepath.Join(o.out, name), b.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	return nil
}

// again publishes the samples of an earlier run.
func (o *options) again(out io.Writer) error {
	f, err := os.Open(o.from)
	if err != nil {
		return err
	}
	defer f.Close()
	facts, s, err := report.ReadCSV(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", o.from, err)
	}
	return o.publish(out, facts, s)
}

// writeReport writes the report as Markdown.
func writeReport(w io.Writer, facts []report.Fact, s report.Samples) error {
	if len(s) == 0 {
		return fmt.Errorf("write report: nothing was measured")
	}
	fmt.Fprintf(w, "# kube-proxy, side by side\n\n| | |\n|---|---|\n")
	for _, f := range facts {
		fmt.Fprintf(w, "| %s | %s |\n", f.Name, f.Value)
	}
	at := Plan{Sizes: s.Sizes()}.mainSize()
	fmt.Fprintf(w, "\n## At %s Services of two endpoints\n\n", report.Count(at))
	if err := report.WriteTable(w, s, at, rows()); err != nil {
		return err
	}
	if len(s.Sizes()) > 1 {
		fmt.Fprintf(w, "\n## From %s to %s Services\n\n![plots](%s)\n\n", report.Count(s.Sizes()[0]),
			report.Count(s.Sizes()[len(s.Sizes())-1]), plotName)
		if err := report.WriteGrowth(w, s, growing()); err != nil {
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
