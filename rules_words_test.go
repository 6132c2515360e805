package varco_test

import (
	"fmt"
	"go/ast"
	"go/token"
	"maps"
	"path"
	"regexp"
	"slices"
	"strings"
)

func checkPackageComments(t *tree) (out []violation) {
	for _, pkg := range t.packages() {
		var with []string
		for _, f := range pkg {
			if f.Doc.Text() != "" && !f.test {
				with = append(with, f.path)
			}
		}
		product := slices.ContainsFunc(pkg, func(f *file) bool { return !f.test })
		dir := path.Dir(pkg[0].path)
		switch {
		case product && len(with) == 0:
			out = append(out, violation{dir, "package " + pkg[0].Name.Name + " has no comment"})
		case len(with) > 1:
			out = append(out, violation{dir, "package comments in " + strings.Join(with, " and ")})
		}
	}
	return out
}

func checkNameComments(t *tree) (out []violation) {
	for _, f := range t.files {
		if f.test || f.generated {
			continue
		}
		for _, spec := range typeSpecs(f) {
			if spec.Name.IsExported() && spec.Doc.Text() == "" {
				out = append(out, t.at(spec.Pos(), "type %s has no comment", spec.Name.Name))
			}
		}
		for _, d := range f.Decls {
			switch d := d.(type) {
			case *ast.FuncDecl:
				if d.Name.IsExported() && exportedReceiver(d) && d.Doc.Text() == "" {
					out = append(out, t.at(d.Pos(), "func %s has no comment", d.Name.Name))
				}
			case *ast.GenDecl:
				out = append(out, t.valueComments(d)...)
			}
		}
	}
	return out
}

// valueComments looks at constants and variables. One comment may speak for a group, and a line's end for its line.
func (t *tree) valueComments(d *ast.GenDecl) (out []violation) {
	if d.Tok != token.CONST && d.Tok != token.VAR || d.Doc.Text() != "" {
		return nil
	}
	for _, s := range d.Specs {
		spec := s.(*ast.ValueSpec)
		i := slices.IndexFunc(spec.Names, (*ast.Ident).IsExported)
		if i >= 0 && spec.Doc.Text() == "" && spec.Comment.Text() == "" {
			out = append(out, t.at(spec.Pos(), "%s %s has no comment", d.Tok, spec.Names[i].Name))
		}
	}
	return out
}

// exportedReceiver says whether a function can be called from outside as far as its receiver goes.
func exportedReceiver(d *ast.FuncDecl) bool {
	if d.Recv == nil {
		return true
	}
	e := d.Recv.List[0].Type
	for {
		switch x := e.(type) {
		case *ast.StarExpr:
			e = x.X
		case *ast.IndexExpr:
			e = x.X
		case *ast.IndexListExpr:
			e = x.X
		case *ast.Ident:
			return x.IsExported()
		default:
			return true
		}
	}
}

func checkPackageNames(t *tree) (out []violation) {
	empty := []string{"util", "utils", "common", "helper", "helpers", "manager", "managers", "types", "base", "misc",
		"shared"}
	for _, pkg := range t.packages() {
		if name := pkg[0].Name.Name; slices.Contains(empty, strings.TrimSuffix(name, "_test")) {
			out = append(out, t.at(pkg[0].Name.Pos(), "package %s says nothing", name))
		}
	}
	return out
}

// skippers are the files that may skip: what a machine can lack is decided there, and there only.
var skippers = []string{"internal/nettest/root.go", "internal/nettest/browser.go"}

func checkTests(t *tree) (out []violation) {
	for _, f := range t.files {
		for _, spec := range f.Imports {
			if strings.HasPrefix(spec.Path.Value, `"github.com/stretchr/testify`) {
				out = append(out, t.at(spec.Pos(), "testify, where testing and go-cmp do"))
			}
		}
		inside := strings.HasSuffix(f.path, "_internal_test.go") || path.Base(f.path) == "export_test.go"
		if f.test && !inside && !strings.HasSuffix(f.Name.Name, "_test") {
			out = append(out, t.at(f.Name.Pos(), "package %s: name it %[1]s_test, or the file x_internal_test.go", f.Name.Name))
		}
		if importName(f, "testing") != "" && !slices.Contains(skippers, f.path) {
			out = append(out, t.skips(f)...)
		}
		if f.test {
			out = append(out, t.sleeps(f)...)
		}
	}
	return out
}

func (t *tree) skips(f *file) (out []violation) {
	ast.Inspect(f.File, func(n ast.Node) bool {
		call, ok := n.(*ast.CallExpr)
		if !ok {
			return true
		}
		sel, ok := call.Fun.(*ast.SelectorExpr)
		if ok && slices.Contains([]string{"Skip", "Skipf", "SkipNow"}, sel.Sel.Name) {
			out = append(out, t.at(sel.Pos(), "a skip that is not nettest's: NeedRoot or NeedBrowser"))
		}
		return true
	})
	return out
}

// sleeps finds calls of time.Sleep without a comment on the line or the line above.
func (t *tree) sleeps(f *file) (out []violation) {
	reason := map[int]bool{}
	for _, c := range f.Comments {
		reason[t.fset.Position(c.Pos()).Line] = true
		reason[t.fset.Position(c.End()).Line+1] = true
	}
	for sel := range uses(f, "time") {
		if sel.Sel.Name == "Sleep" && !reason[t.fset.Position(sel.Pos()).Line] {
			out = append(out, t.at(sel.Pos(), "time.Sleep without its reason"))
		}
	}
	return out
}

// checkReadmes wants a README.md for each of the five that exists, examples that can be typed, and links that lead
// somewhere.
func checkReadmes(t *tree) (out []violation) {
	for _, name := range theFive {
		dir := "internal/" + name
		exists := slices.ContainsFunc(t.files, func(f *file) bool { return path.Dir(f.path) == dir && !f.test })
		if _, ok := t.texts[dir+"/README.md"]; exists && !ok {
			out = append(out, violation{dir, "no README.md"})
		}
	}
	for _, name := range slices.Sorted(maps.Keys(t.texts)) {
		if path.Ext(name) == ".md" {
			out = append(out, t.examples(name)...)
			out = append(out, t.links(name)...)
		}
	}
	return out
}

// examples checks the lines of a text's ```sh blocks that begin with make, varco or varco-lab.
func (t *tree) examples(name string) (out []violation) {
	shell := false
	for i, line := range strings.Split(t.texts[name], "\n") {
		if fence, ok := strings.CutPrefix(line, "```"); ok {
			shell = fence == "sh"
			continue
		}
		words := strings.Fields(strings.TrimPrefix(line, "sudo "))
		if !shell || len(words) < 2 {
			continue
		}
		if what := t.exampleFault(path.Base(words[0]), words[1]); what != "" {
			out = append(out, violation{fmt.Sprintf("%s:%d", name, i+1), what})
		}
	}
	return out
}

func (t *tree) exampleFault(command, argument string) string {
	switch {
	case strings.HasPrefix(argument, "-"):
	case command == "make":
		if !regexp.MustCompile(`(?m)^` + regexp.QuoteMeta(argument) + `:`).MatchString(t.texts["Makefile"]) {
			return "the Makefile has no target " + argument
		}
	case command == "varco":
		file := "internal/cli/" + strings.ReplaceAll(argument, "-", "") + ".go"
		if _, ok := t.texts[file]; !ok {
			return "varco has no command " + argument + ", which would be " + file
		}
	case command == "varco-lab":
		use := regexp.MustCompile(`Use: +"` + regexp.QuoteMeta(argument) + `[" ]`)
		found := slices.ContainsFunc(t.files, func(f *file) bool { return f.in("lab") && use.MatchString(t.texts[f.path]) })
		if !found {
			return "varco-lab has no command " + argument
		}
	}
	return ""
}

// linked matches the target of a link to a file of the repository.
var linked = regexp.MustCompile(`\]\(([^):#]+)[^):]*\)`)

func (t *tree) links(name string) (out []violation) {
	for i, line := range strings.Split(t.texts[name], "\n") {
		for _, m := range linked.FindAllStringSubmatch(line, -1) {
			if !t.paths[path.Join(path.Dir(name), m[1])] {
				out = append(out, violation{fmt.Sprintf("%s:%d", name, i+1), "link to " + m[1] + ", which is not there"})
			}
		}
	}
	return out
}

// machinePath matches what begins with a folder of one machine or one person.
var machinePath = regexp.MustCompile(`(?:^|[^\w/])(/(?:root|(?:work|home|Users)/\w+)/)`)

func checkMachinePaths(t *tree) (out []violation) {
	for _, name := range slices.Sorted(maps.Keys(t.texts)) {
		for i, line := range strings.Split(t.texts[name], "\n") {
			if found := machinePath.FindStringSubmatch(line); found != nil {
				out = append(out, violation{fmt.Sprintf("%s:%d", name, i+1), "path " + found[1]})
			}
		}
	}
	return out
}
