package varco_test

import (
	"go/ast"
	"go/token"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

const (
	maxFunction = 80  // lines, without tables
	maxFile     = 500 // lines
	maxMain     = 39  // lines of cmd/varco/main.go
	maxMethods  = 3   // of an interface
	minTable    = 10  // a literal of more lines than this is a table
)

func checkSizes(t *tree) (out []violation) {
	for _, f := range t.files {
		if f.generated {
			continue
		}
		limit := maxFile
		if f.path == "cmd/varco/main.go" {
			limit = maxMain
		}
		if n := strings.Count(t.texts[f.path], "\n"); n > limit {
			out = append(out, t.at(f.FileStart, "%d lines, the limit is %d", n, limit))
		}
		for _, d := range f.Decls {
			fn, ok := d.(*ast.FuncDecl)
			if !ok {
				continue
			}
			if n := t.codeLines(fn); n > maxFunction {
				out = append(out, t.at(fn.Pos(), "%s has %d lines, the limit is %d", fn.Name.Name, n, maxFunction))
			}
		}
	}
	return out
}

func (t *tree) lines(from, to token.Pos) int {
	return t.fset.Position(to).Line - t.fset.Position(from).Line + 1
}

// codeLines counts the lines of n without its tables. The functions that stand in a table count.
func (t *tree) codeLines(n ast.Node) int {
	total := t.lines(n.Pos(), n.End())
	ast.Inspect(n, func(n ast.Node) bool {
		if n == nil || !isData(n) || t.lines(n.Pos(), n.End()) <= minTable {
			return true
		}
		total -= t.lines(n.Pos(), n.End()) - 1
		ast.Inspect(n, func(n ast.Node) bool {
			fn, ok := n.(*ast.FuncLit)
			if ok {
				total += t.codeLines(fn)
			}
			return !ok
		})
		return false
	})
	return total
}

func isData(n ast.Node) bool {
	switch n := n.(type) {
	case *ast.CompositeLit:
		return true
	case *ast.BasicLit:
		return n.Kind == token.STRING
	}
	return false
}

func checkInterfaces(t *tree) (out []violation) {
	for _, f := range t.files {
		if f.generated {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			if it, ok := n.(*ast.InterfaceType); ok && it.Methods.NumFields() > maxMethods {
				out = append(out, t.at(it.Pos(), "interface of %d methods, the limit is %d", it.Methods.NumFields(), maxMethods))
			}
			return true
		})
		for _, spec := range typeSpecs(f) {
			if _, ok := spec.Type.(*ast.InterfaceType); ok && spec.Doc.Text() == "" {
				out = append(out, t.at(spec.Pos(), "interface %s has no contract", spec.Name.Name))
			}
		}
	}
	return out
}

// typeSpecs returns the types of the file's top level, each with its own comment or, where it is alone, that of its
// declaration.
func typeSpecs(f *file) (out []*ast.TypeSpec) {
	for _, d := range f.Decls {
		gen, ok := d.(*ast.GenDecl)
		if !ok || gen.Tok != token.TYPE {
			continue
		}
		for _, s := range gen.Specs {
			spec := *s.(*ast.TypeSpec)
			if !gen.Lparen.IsValid() && spec.Doc == nil {
				spec.Doc = gen.Doc
			}
			out = append(out, &spec)
		}
	}
	return out
}

// checkAddresses finds the address types of package net where netip has taken over. The doors convert: what comes from
// the API, and what goes to the kernel.
func checkAddresses(t *tree) (out []violation) {
	old := []string{"IP", "IPNet", "IPMask", "ParseIP", "ParseCIDR"}
	for _, f := range t.files {
		if !f.product() || f.forTests() || touchesKernel(f) || f.in("internal/apiwatch") {
			continue
		}
		for sel := range uses(f, "net") {
			if slices.Contains(old, sel.Sel.Name) {
				out = append(out, t.at(sel.Pos(), "net.%s instead of netip", sel.Sel.Name))
			}
		}
	}
	return out
}

// uses yields the places where the file uses a package by its import path.
func uses(f *file, importPath string) func(func(*ast.SelectorExpr) bool) {
	name := importName(f, importPath)
	return func(yield func(*ast.SelectorExpr) bool) {
		more := name != ""
		ast.Inspect(f.File, func(n ast.Node) bool {
			if sel, ok := n.(*ast.SelectorExpr); ok && more {
				if id, ok := sel.X.(*ast.Ident); ok && id.Name == name {
					more = yield(sel)
				}
			}
			return more
		})
	}
}

// importName returns the name by which the file calls the package, "" if it does not import it.
func importName(f *file, importPath string) string {
	for _, spec := range f.Imports {
		if p, _ := strconv.Unquote(spec.Path.Value); p == importPath {
			if spec.Name != nil {
				return spec.Name.Name
			}
			return p[strings.LastIndex(p, "/")+1:]
		}
	}
	return ""
}

var noise = regexp.MustCompile(`^(failed to|could not|unable to|cannot|error|unexpected error)\b`)

// checkErrors reads the constant messages of errors.New and fmt.Errorf. Staticcheck finds the capitals (ST1005).
func checkErrors(t *tree) (out []violation) {
	for _, f := range t.files {
		if f.test || f.generated {
			continue
		}
		ast.Inspect(f.File, func(n ast.Node) bool {
			call, ok := n.(*ast.CallExpr)
			if !ok || !isCall(f, call, "errors", "New") && !isCall(f, call, "fmt", "Errorf") || len(call.Args) == 0 {
				return true
			}
			lit, ok := call.Args[0].(*ast.BasicLit)
			if !ok {
				return true
			}
			if what := errorFault(lit, call.Args[1:]); what != "" {
				out = append(out, t.at(call.Pos(), "%s", what))
			}
			return true
		})
	}
	return out
}

func errorFault(lit *ast.BasicLit, args []ast.Expr) string {
	msg, _ := strconv.Unquote(lit.Value)
	err := slices.IndexFunc(args, func(e ast.Expr) bool {
		id, ok := e.(*ast.Ident)
		return ok && id.Name == "err"
	})
	switch {
	case noise.MatchString(msg):
		return "error begins with \"" + noise.FindString(msg) + "\" instead of what was being done"
	case err >= 0 && !strings.Contains(msg, "%w"):
		return "error hides its cause"
	}
	return ""
}

// isCall says whether the call is of a function of a package.
func isCall(f *file, call *ast.CallExpr, importPath string, names ...string) bool {
	sel, ok := call.Fun.(*ast.SelectorExpr)
	if !ok {
		return false
	}
	id, ok := sel.X.(*ast.Ident)
	return ok && id.Name == importName(f, importPath) && slices.Contains(names, sel.Sel.Name)
}

// checkLogging finds ways around the logger that was handed in. The bridge for klog is in cli or observe, and in the
// lab where a command is wired.
func checkLogging(t *tree) (out []violation) {
	global := []string{"Default", "SetDefault", "Debug", "Info", "Warn", "Error", "Log",
		"DebugContext", "InfoContext", "WarnContext", "ErrorContext"}
	for _, f := range t.files {
		if f.test {
			continue
		}
		wires := f.in("internal/cli", "internal/observe", "lab/internal/upstream") || f.Name.Name == "main" ||
			!f.product() && path.Base(f.path) == "command.go"
		for _, spec := range f.Imports {
			p, _ := strconv.Unquote(spec.Path.Value)
			if p == "log" || below(p, "k8s.io/klog") && !wires {
				out = append(out, t.at(spec.Pos(), "imports %s", p))
			}
		}
		for sel := range uses(f, "fmt") {
			if strings.HasPrefix(sel.Sel.Name, "Print") && f.Name.Name != "main" {
				out = append(out, t.at(sel.Pos(), "fmt.%s writes to standard output", sel.Sel.Name))
			}
		}
		for sel := range uses(f, "log/slog") {
			if slices.Contains(global, sel.Sel.Name) && !wires {
				out = append(out, t.at(sel.Pos(), "slog.%s uses the global logger", sel.Sel.Name))
			}
		}
	}
	return out
}
