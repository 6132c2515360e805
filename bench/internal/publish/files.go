package publish

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"varco.dev/bench/internal/report"
)

// Report is how one comparison is written.
type Report struct {
	// Name is that of the files: Name.md, Name.svg and Name.csv.
	Name string
	// Text writes what stands below the title and the facts.
	Text func(io.Writer, report.Samples) error
	// Panels are the plots.
	Panels []report.Panel
}

// Write writes the report: its text to out and, if there is a folder for it, everything to files.
func (r Report) Write(out io.Writer, dir string, facts []report.Fact, s report.Samples) error {
	var text, plot, raw bytes.Buffer
	if err := r.markdown(&text, facts, s); err != nil {
		return err
	}
	if _, err := out.Write(text.Bytes()); err != nil || dir == "" {
		return err
	}
	if err := report.WriteSVG(&plot, s, r.Panels); err != nil {
		return err
	}
	if err := report.WriteCSV(&raw, facts, s); err != nil {
		return err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("make folder of the report: %w", err)
	}
	for name, b := range map[string]*bytes.Buffer{r.Name + ".md": &text, r.Name + ".svg": &plot, r.Name + ".csv": &raw} {
		if err := os.WriteFile(filepath.Join(dir, name), b.Bytes(), 0o644); err != nil {
			return fmt.Errorf("write report: %w", err)
		}
	}
	return nil
}

// Again writes the report of the samples of an earlier run, which path names.
func (r Report) Again(out io.Writer, dir, path string) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	facts, s, err := report.ReadCSV(f)
	if err != nil {
		return fmt.Errorf("read %s: %w", path, err)
	}
	return r.Write(out, dir, facts, s)
}

func (r Report) markdown(w io.Writer, facts []report.Fact, s report.Samples) error {
	if len(s) == 0 {
		return errors.New("write report: nothing was measured")
	}
	fmt.Fprintf(w, "# %s, side by side\n\n| | |\n|---|---|\n", r.Name)
	for _, f := range facts {
		fmt.Fprintf(w, "| %s | %s |\n", f.Name, f.Value)
	}
	return r.Text(w, s)
}
