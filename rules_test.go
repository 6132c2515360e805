// Package varco_test holds the rules of the house as tests. CONTRIBUTING.md has them as sentences, with the same
// numbers; what is here is the part of them that a machine can check, over all modules and all their texts.
//
// Each rule has a sample in testdata/rules: a small tree that breaks it, and the violations that must be found there.
package varco_test

import (
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
)

// rule is one check.
type rule struct {
	name   string // also the name of its sample
	number int    // in CONTRIBUTING.md
	todo   string // what to do about a violation
	check  func(*tree) []violation
}

// violation says where a rule is broken, and how.
type violation struct {
	where string // file or file:line, from the root of the repository
	what  string
}

func (v violation) String() string { return v.where + ": " + v.what }

var rules = []rule{
	{"parse", 0, "make the file compile", checkParse},
	{"import-directions", 1, "move the shared part down, or hand it in from above", checkDirections},
	{"import-doors", 1, "go through the package that owns the door", checkDoors},
	{"package-comments", 2, "say in one place, mostly doc.go, what the package is for", checkPackageComments},
	{"name-comments", 2, "write a comment that a caller can rely on: shapes, units, errors, source", checkNameComments},
	{"sizes", 3, "split by idea, not by size", checkSizes},
	{"interfaces", 4, "keep the interface beside its consumer, with one to three methods and its contract as comment",
		checkInterfaces},
	{"state", 5, "hand the value in through a Config or a constructor", checkState},
	{"package-names", 6, "name the package by a noun of the domain", checkPackageNames},
	{"addresses", 6, "convert to netip once, where the address comes in", checkAddresses},
	{"errors", 7, "say what was being done, and wrap the cause with %w", checkErrors},
	{"logging", 8, "log to the *slog.Logger that was handed in (slog.NewLogLogger makes net/http's), print to a writer",
		checkLogging},
	{"tests", 10, "test from outside, wait for events or say beside the sleep why not, skip only by nettest.NeedRoot or NeedBrowser",
		checkTests},
	{"readmes", 12, "write down what the reader can do and nothing else", checkReadmes},
	{"dependencies", 12, "keep docs/dependencies.md: one line for each library, what for, why this one", checkDependencies},
	{"machine-paths", 12, "use a path that every reader has", checkMachinePaths},
}

func TestRules(t *testing.T) {
	tree, err := load(os.DirFS("."))
	if err != nil {
		t.Fatal(err)
	}
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			for _, v := range r.check(tree) {
				t.Errorf("%s\n\trule %d of CONTRIBUTING.md: %s", v, r.number, r.todo)
			}
		})
	}
}

// TestRulesCanFail runs each rule on its sample. The comment of the sample lists the violations, one a line.
func TestRulesCanFail(t *testing.T) {
	for _, r := range rules {
		t.Run(r.name, func(t *testing.T) {
			sample, err := txtar.ParseFile(filepath.Join("testdata", "rules", r.name+".txtar"))
			if err != nil {
				t.Fatalf("rule %s needs a sample that breaks it: %v", r.name, err)
			}
			files, err := txtar.FS(sample)
			if err != nil {
				t.Fatal(err)
			}
			tree, err := load(files)
			if err != nil {
				t.Fatal(err)
			}
			var got strings.Builder
			for _, v := range r.check(tree) {
				fmt.Fprintln(&got, v)
			}
			if want := string(sample.Comment); got.String() != want || want == "" {
				t.Errorf("got:\n%s\nwant:\n%s", got.String(), want)
			}
		})
	}
}

// tree is a repository: the product's module at its root, and the modules of the folders lab and bench.
type tree struct {
	fset   *token.FileSet
	files  []*file           // Go files, in the order of their paths
	texts  map[string]string // path -> content of every text file, Go files too
	paths  map[string]bool   // every file and folder that texts may link to
	broken []violation       // Go files that do not parse
}

// file is a Go file.
type file struct {
	*ast.File
	path      string // from the root, with slashes
	test      bool
	generated bool
}

// product says whether the file belongs to the product's module.
func (f *file) product() bool {
	top, _, _ := strings.Cut(f.path, "/")
	return top != "lab" && top != "bench"
}

// in says whether the file is in one of the folders or below it.
func (f *file) in(dirs ...string) bool {
	return slices.ContainsFunc(dirs, func(d string) bool { return strings.HasPrefix(f.path, d+"/") })
}

func load(files fs.FS) (*tree, error) {
	t := &tree{fset: token.NewFileSet(), texts: map[string]string{}, paths: map[string]bool{}}
	err := fs.WalkDir(files, ".", func(name string, entry fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		t.paths[name] = true
		switch {
		case name == ".git", name == "bin", name == "testdata/rules":
			return fs.SkipDir
		case !entry.Type().IsRegular() || !isText(name):
			return nil
		}
		b, err := fs.ReadFile(files, name)
		if err != nil {
			return err
		}
		t.texts[name] = string(b)
		if path.Ext(name) == ".go" && !strings.Contains(name, "testdata/") {
			t.parse(name, b)
		}
		return nil
	})
	return t, err
}

// isText says whether people read the file.
func isText(name string) bool {
	exts := []string{".go", ".md", ".mod", ".yaml", ".yml", ".txtar", ".svg", ".sh", ".c", ".h", ".conf", ".json"}
	return slices.Contains(exts, path.Ext(name)) || path.Base(name) == "Makefile" || name == ".ci/run"
}

func (t *tree) parse(name string, src []byte) {
	f, err := parser.ParseFile(t.fset, name, src, parser.ParseComments|parser.SkipObjectResolution)
	if err != nil {
		where, what, _ := strings.Cut(err.Error(), ": ")
		t.broken = append(t.broken, violation{where, what})
		return
	}
	test := strings.HasSuffix(name, "_test.go")
	t.files = append(t.files, &file{File: f, path: name, test: test, generated: ast.IsGenerated(f)})
}

// packages returns the files of each package; an external test package is one of its own.
func (t *tree) packages() [][]*file {
	var order [][]*file
	at := map[string]int{}
	for _, f := range t.files {
		key := path.Dir(f.path) + " " + f.Name.Name
		i, ok := at[key]
		if !ok {
			i = len(order)
			at[key] = i
			order = append(order, nil)
		}
		order[i] = append(order[i], f)
	}
	return order
}

// at makes a violation at a place in a Go file.
func (t *tree) at(pos token.Pos, format string, args ...any) violation {
	p := t.fset.Position(pos)
	return violation{fmt.Sprintf("%s:%d", p.Filename, p.Line), fmt.Sprintf(format, args...)}
}

func checkParse(t *tree) []violation { return t.broken }
