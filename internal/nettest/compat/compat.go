// Package compat runs what a proxy and its original are compared in, row by row, and keeps the table in a README that says
// what came of it. It is for tests only.
package compat

import (
	"fmt"
	"os"
	"strings"
	"testing"
)

// Same is what a Row says of ours if it does as the original.
const Same = "same"

// Row is something that the original does. Its test sends the same bytes to both, looks at what the original does first, and
// then at what comes back from ours.
type Row struct {
	Name           string // of the subtest
	What           string
	Original, Here string // Same: as there
	Test           func(*testing.T)
	Elsewhere      string // or: file, as the test finds it, and name of a test elsewhere
}

// Run runs the tests of the rows, each in a subtest, and looks for those that are elsewhere.
func Run(t *testing.T, rows []Row) {
	for _, r := range rows {
		if r.Test != nil {
			t.Run(r.Name, r.Test)
			continue
		}
		t.Run(r.Name, func(t *testing.T) {
			file, name, _ := strings.Cut(r.Elsewhere, " ")
			if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), "func "+name+"(") {
				t.Errorf("%s has no %s (%v)", file, name, err)
			}
		})
	}
}

// Readme compares the section Compatibility of README.md with the rows; update has it rewritten instead. The subtests of the
// rows are those of TestCompatibility. original is the title of a column.
func Readme(t *testing.T, original string, rows []Row, update bool) {
	t.Helper()
	const file, title, next = "README.md", "## Compatibility\n\n", "\n## "
	b, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	before, rest, ok := strings.Cut(string(b), title)
	section, after, ok2 := strings.Cut(rest, next)
	if !ok || !ok2 {
		t.Fatalf("%s has no section %q before another", file, title)
	}
	want := table(original, rows)
	if update {
		if err := os.WriteFile(file, []byte(before+title+want+next+after), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if section != want {
		t.Errorf("the table in %s is not that of the tests; go test -run %s -update writes:\n%s", file, t.Name(), want)
	}
}

// table is the rows in Markdown: what differs as a table, and what does not as a list.
func table(original string, rows []Row) string {
	var differs, equal strings.Builder
	for _, r := range rows {
		test := "TestCompatibility/" + r.Name
		if r.Test == nil {
			_, test, _ = strings.Cut(r.Elsewhere, " ")
		}
		if r.Here == Same {
			fmt.Fprintf(&equal, "- %s: %s (`%s`)\n", r.What, r.Original, test)
		} else {
			fmt.Fprintf(&differs, "| %s | %s | %s | `%s` |\n", r.What, r.Original, r.Here, test)
		}
	}
	return "The same bytes are sent to both, and this comes back:\n\n| what | " + original + " | here | test |\n|---|---|---|---|\n" +
		differs.String() + "\nThe same in both:\n\n" + equal.String()
}
