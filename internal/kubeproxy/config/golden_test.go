package config_test

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/spf13/pflag"
	"golang.org/x/tools/txtar"

	"varco.dev/internal/kubeproxy/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// options are those of a command line. Where it names a file, that is the place of the file's content.
func options(t testing.TB, args ...string) *config.Options {
	t.Helper()
	o := config.NewOptions()
	flags := pflag.NewFlagSet("test", pflag.ContinueOnError)
	flags.SetOutput(&bytes.Buffer{})
	o.AddFlags(flags)
	if err := flags.Parse(args); err != nil {
		t.Fatal(err)
	}
	return o
}

// TestGolden loads what each file of testdata has in its sections flags, one a line, and config.yaml. Its section want
// has the error, or the notes and all fields that are not as without flags.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("found no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			want := section(archive, "want")
			got := load(t, section(archive, "flags"), section(archive, "config.yaml"))
			if *update {
				want.Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want.Data), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

// section finds a file of the archive, nil if there is none; want is added.
func section(a *txtar.Archive, name string) *txtar.File {
	if i := slices.IndexFunc(a.Files, func(f txtar.File) bool { return f.Name == name }); i >= 0 {
		return &a.Files[i]
	}
	if name != "want" {
		return nil
	}
	a.Files = append(a.Files, txtar.File{Name: name})
	return &a.Files[len(a.Files)-1]
}

func load(t *testing.T, flags, file *txtar.File) string {
	var args []string
	if flags != nil {
		args = strings.Split(strings.TrimSpace(string(flags.Data)), "\n")
	}
	dir := t.TempDir()
	if file != nil {
		path := filepath.Join(dir, file.Name)
		if err := os.WriteFile(path, file.Data, 0o600); err != nil {
			t.Fatal(err)
		}
		args = append(args, "--config="+path)
	}
	c, err := options(t, args...).Load()
	if err != nil {
		return "error: " + strings.ReplaceAll(err.Error(), dir, "DIR") + "\n"
	}
	var b strings.Builder
	for _, n := range c.Notes {
		fmt.Fprintf(&b, "%s: %s\n", map[bool]string{true: "warning", false: "note"}[n.Warning], strings.ReplaceAll(n.Text, dir, "DIR"))
	}
	return b.String() + differences(t, c)
}

// differences lists the fields that are not as without flags.
func differences(t *testing.T, c config.Config) string {
	plain, err := options(t).Load()
	if err != nil {
		t.Fatal(err)
	}
	was, is := fields(t, plain), fields(t, c)
	var b strings.Builder
	for _, name := range slices.Sorted(maps.Keys(is)) {
		if is[name] != was[name] {
			fmt.Fprintf(&b, "%s = %s\n", name, is[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if _, ok := is[name]; !ok {
			fmt.Fprintf(&b, "%s is gone\n", name)
		}
	}
	return b.String()
}

// fields flattens the configuration: path -> value.
func fields(t *testing.T, c config.Config) map[string]string {
	var tree any
	if err := json.Unmarshal(c.EffectiveJSON(), &tree); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	flatten(tree, "", out)
	return out
}

func flatten(tree any, path string, out map[string]string) {
	if object, ok := tree.(map[string]any); ok {
		for name, value := range object {
			flatten(value, strings.TrimPrefix(path+"."+name, "."), out)
		}
		return
	}
	text, _ := json.Marshal(tree) // it has just come from JSON
	out[path] = string(text)
}
