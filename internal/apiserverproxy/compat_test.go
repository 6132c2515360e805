package apiserverproxy_test

import (
	"flag"
	"fmt"
	"os"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the table in README.md")

// row is something that kube-apiserver v1.37 does with a proxy request. Its test sends the same bytes to both, looks at what
// the original does first, and then at what comes back here.
type row struct {
	name           string // of the subtest
	what           string
	original, here string // "same": as there
	test           func(*testing.T)
	elsewhere      string // or: file and name of a test elsewhere
}

// same is what most rows say.
const same = "same"

func TestCompatibility(t *testing.T) {
	for _, r := range rows() {
		if r.test == nil {
			t.Run(r.name, func(t *testing.T) {
				file, name, _ := strings.Cut(r.elsewhere, " ")
				text, err := os.ReadFile(file)
				if err != nil {
					t.Fatal(err)
				}
				if !strings.Contains(string(text), "func "+name+"(") {
					t.Errorf("%s has no %s", file, name)
				}
			})
			continue
		}
		t.Run(r.name, r.test)
	}
}

// TestCompatibilityTable compares the table in README.md with the rows; -update rewrites it.
func TestCompatibilityTable(t *testing.T) {
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
	want := table()
	if *update {
		b = []byte(before + title + want + next + after)
		if err := os.WriteFile(file, b, 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if section != want {
		t.Errorf("the table in %s is not that of the tests; go test -run %s -update writes:\n%s", file, t.Name(), want)
	}
}

// table is the rows in Markdown: what differs as a table, and what does not as a list.
func table() string {
	var differs, equal strings.Builder
	for _, r := range rows() {
		test := "TestCompatibility/" + r.name
		if r.test == nil {
			_, test, _ = strings.Cut(r.elsewhere, " ")
		}
		if r.here == same {
			fmt.Fprintf(&equal, "- %s: %s (`%s`)\n", r.what, r.original, test)
		} else {
			fmt.Fprintf(&differs, "| %s | %s | %s | `%s` |\n", r.what, r.original, r.here, test)
		}
	}
	return "The same requests are sent to both, and this comes back. What differs:\n\n| what | kube-apiserver v1.37 | here | test |\n|---|---|---|---|\n" +
		differs.String() + "\nThe same in both:\n\n" + equal.String()
}
