package cli_test

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"varco.dev/internal/cli"
)

// execute runs the command line and returns what it printed and its error.
func execute(t *testing.T, args ...string) (string, error) {
	t.Helper()
	var out bytes.Buffer
	root := cli.Root()
	root.SetArgs(args)
	root.SetOut(&out)
	root.SetErr(&out)
	err := root.ExecuteContext(t.Context())
	return out.String(), err
}

// TestReadmeExamples parses every line of the READMEs that begins with varco.
func TestReadmeExamples(t *testing.T) {
	files, err := filepath.Glob("../*/README.md")
	if err != nil {
		t.Fatal(err)
	}
	examples := 0
	for _, file := range append(files, "../../README.md") {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for line := range strings.Lines(string(text)) {
			words := strings.Fields(line)
			if len(words) < 2 || words[0] != "varco" {
				continue
			}
			examples++
			cmd, rest, err := cli.Root().Find(words[1:])
			if err == nil {
				err = cmd.ParseFlags(rest)
			}
			if err != nil || !cmd.Runnable() {
				t.Errorf("%s: %q: %v", file, strings.TrimSpace(line), err)
			}
		}
	}
	if examples == 0 {
		t.Error("no README has an example")
	}
}
