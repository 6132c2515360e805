package cli

import (
	"encoding/json"
	"fmt"
	"io"

	"github.com/spf13/pflag"
	"sigs.k8s.io/yaml"
)

// outputFlag says in which form a command answers.
type outputFlag struct{ output string }

func (f *outputFlag) add(flags *pflag.FlagSet) {
	flags.StringVarP(&f.output, "output", "o", "table", "table, json or yaml")
}

// write writes a value in the form that was asked for.
func (f *outputFlag) write(w io.Writer, value any, table func(io.Writer) error) error {
	switch f.output {
	case "table":
		return table(w)
	case "json":
		e := json.NewEncoder(w)
		e.SetIndent("", "  ")
		return e.Encode(value)
	case "yaml":
		text, err := yaml.Marshal(value)
		if err != nil {
			return err
		}
		_, err = w.Write(text)
		return err
	}
	return fmt.Errorf("--output: %q is not table, json or yaml", f.output)
}
