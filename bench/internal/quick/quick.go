// Package quick puts a smoke run in the place of a full one, where the flags say nothing else.
package quick

import (
	"fmt"

	"github.com/spf13/pflag"
)

// Over makes plan, whose fields the flags are bound to, the quick one, but for what the user has set.
func Over[P any](flags *pflag.FlagSet, plan *P, quick P) error {
	given := map[*pflag.Flag][]string{}
	flags.Visit(func(f *pflag.Flag) {
		if list, ok := f.Value.(pflag.SliceValue); ok {
			given[f] = list.GetSlice()
		} else {
			given[f] = []string{f.Value.String()}
		}
	})
	*plan = quick
	for f, values := range given {
		if err := put(f, values); err != nil {
			return fmt.Errorf("set --%s again: %w", f.Name, err)
		}
	}
	return nil
}

// put sets a flag. A list is replaced: Set would add to it.
func put(f *pflag.Flag, values []string) error {
	if list, ok := f.Value.(pflag.SliceValue); ok {
		return list.Replace(values)
	}
	return f.Value.Set(values[0])
}
