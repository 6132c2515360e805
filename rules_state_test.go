package varco_test

import (
	"errors"
	"go/ast"
	"go/token"
	"go/types"
	"slices"
	"strconv"
	"strings"
)

// pure are the functions whose result may be a variable of a package: it is a constant in all but name. Functions that
// are named Must… and those of package netip are pure too.
var pure = []string{"errors.New", "fmt.Errorf", "strings.NewReplacer", "time.Duration"}

// checkState finds func init and variables of packages that can change. A variable of a package is fine if nothing
// ever assigns to it or takes its address, and if its first value is
//
//   - an error sentinel, a compiled regexp, or another result of a pure function;
//   - a table: a composite literal of such values, not a pointer to one, and nothing of package sync;
//   - a literal, a conversion, a function or another variable;
//   - a check such as var _ Interface = (*T)(nil), an embedded file, or in tests a flag.
func checkState(t *tree) (out []violation) {
	for _, pkg := range t.packages() {
		for _, f := range pkg {
			if !f.generated {
				out = append(out, t.firstValues(f)...)
			}
		}
		out = append(out, t.assignments(pkg)...)
	}
	return out
}

func (t *tree) firstValues(f *file) (out []violation) {
	for _, d := range f.Decls {
		switch d := d.(type) {
		case *ast.FuncDecl:
			if d.Name.Name == "init" && d.Recv == nil {
				out = append(out, t.at(d.Pos(), "func init"))
			}
		case *ast.GenDecl:
			if d.Tok != token.VAR {
				continue
			}
			for _, s := range d.Specs {
				spec := s.(*ast.ValueSpec)
				if !constantLike(f, d, spec) {
					out = append(out, t.at(spec.Pos(), "variable %s can hold state", spec.Names[0].Name))
				}
			}
		}
	}
	return out
}

func constantLike(f *file, d *ast.GenDecl, spec *ast.ValueSpec) bool {
	if spec.Names[0].Name == "_" || embeds(d.Doc) || embeds(spec.Doc) {
		return true
	}
	changes := func(e ast.Expr) bool { return !constant(f, e) }
	return len(spec.Values) > 0 && !slices.ContainsFunc(spec.Values, changes)
}

func embeds(doc *ast.CommentGroup) bool {
	return doc != nil && slices.ContainsFunc(doc.List, func(c *ast.Comment) bool {
		return strings.HasPrefix(c.Text, "//go:embed ")
	})
}

// constant says whether e is one of the values that checkState allows.
func constant(f *file, e ast.Expr) bool {
	switch e := e.(type) {
	case *ast.BasicLit, *ast.Ident, *ast.SelectorExpr, *ast.FuncLit:
		return true
	case *ast.ParenExpr:
		return constant(f, e.X)
	case *ast.UnaryExpr:
		return e.Op != token.AND && e.Op != token.ARROW && constant(f, e.X)
	case *ast.BinaryExpr:
		return constant(f, e.X) && constant(f, e.Y)
	case *ast.CallExpr:
		return constantCall(f, e)
	case *ast.CompositeLit:
		return constantTable(f, e)
	}
	return false
}

func constantCall(f *file, call *ast.CallExpr) bool {
	switch fun := call.Fun.(type) {
	case *ast.Ident: // a conversion, as far as a reader of one file can tell
		return types.Universe.Lookup(fun.Name) != nil && fun.Name != "new" && fun.Name != "make" ||
			strings.HasPrefix(fun.Name, "must")
	case *ast.ArrayType, *ast.ParenExpr:
		return true
	case *ast.SelectorExpr:
		name := types.ExprString(fun)
		inTest := f.test && strings.HasPrefix(name, "flag.")
		prefixed := strings.HasPrefix(fun.Sel.Name, "Must") || strings.HasPrefix(name, "netip.")
		return inTest || prefixed || slices.Contains(pure, name)
	}
	return false
}

func constantTable(f *file, lit *ast.CompositeLit) bool {
	if lit.Type != nil {
		if name := types.ExprString(lit.Type); strings.HasPrefix(name, "sync.") || strings.HasPrefix(name, "atomic.") {
			return false
		}
	}
	for _, e := range lit.Elts {
		if kv, ok := e.(*ast.KeyValueExpr); ok {
			e = kv.Value
		}
		if ref, ok := e.(*ast.UnaryExpr); ok && ref.Op == token.AND {
			e = ref.X
		}
		if !constant(f, e) {
			return false
		}
	}
	return true
}

// assignments finds what changes variables of the package, or of another package, after their first value.
func (t *tree) assignments(pkg []*file) (out []violation) {
	asts := make([]*ast.File, len(pkg))
	for i, f := range pkg {
		asts[i] = f.File
	}
	info := &types.Info{Defs: map[*ast.Ident]types.Object{}, Uses: map[*ast.Ident]types.Object{}}
	// Imports are not resolved: the checker says so, and still knows which names belong to this package.
	conf := types.Config{Importer: noImports{}, Error: func(error) {}}
	checked, _ := conf.Check(pkg[0].Name.Name, t.fset, asts, info)
	for _, f := range pkg {
		if f.generated {
			continue
		}
		for _, e := range targets(f) {
			id := root(e)
			if id == nil {
				continue
			}
			if v, ok := info.Uses[id].(*types.Var); ok && v.Parent() == checked.Scope() {
				out = append(out, t.at(e.Pos(), "changes %s, a variable of the package", id.Name))
			}
			if _, ok := info.Uses[id].(*types.PkgName); ok && e != ast.Expr(id) {
				out = append(out, t.at(e.Pos(), "changes %s, a variable of another package", types.ExprString(e)))
			}
		}
	}
	return out
}

type noImports struct{}

func (noImports) Import(path string) (*types.Package, error) {
	return nil, errors.New("import " + strconv.Quote(path) + " is not resolved")
}

// targets returns what the file's functions assign to, step, delete from or take the address of.
func targets(f *file) (out []ast.Expr) {
	for _, d := range f.Decls {
		fn, ok := d.(*ast.FuncDecl)
		if !ok {
			continue
		}
		ast.Inspect(fn, func(n ast.Node) bool {
			switch n := n.(type) {
			case *ast.AssignStmt:
				if n.Tok != token.DEFINE {
					out = append(out, n.Lhs...)
				}
			case *ast.RangeStmt:
				if n.Tok == token.ASSIGN {
					out = append(out, n.Key, n.Value)
				}
			case *ast.IncDecStmt:
				out = append(out, n.X)
			case *ast.UnaryExpr:
				if n.Op == token.AND {
					out = append(out, n.X)
				}
			case *ast.CallExpr:
				if id, ok := n.Fun.(*ast.Ident); ok && (id.Name == "delete" || id.Name == "clear") && len(n.Args) > 0 {
					out = append(out, n.Args[0])
				}
			}
			return true
		})
	}
	return out
}

// root returns the variable, or the package, that an expression such as a.b[i] starts from; nil if it is no such
// expression.
func root(e ast.Expr) *ast.Ident {
	switch e := e.(type) {
	case *ast.Ident:
		return e
	case *ast.SelectorExpr:
		return root(e.X)
	case *ast.IndexExpr:
		return root(e.X)
	case *ast.ParenExpr:
		return root(e.X)
	case *ast.StarExpr:
		return root(e.X)
	}
	return nil
}
