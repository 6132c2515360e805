package config

import (
	"fmt"
	"math"
	"reflect"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"go.yaml.in/yaml/v3"
)

// lines has the line of each field that was given, by its path.
type lines map[string]int

// walk goes through a YAML document beside the type that it is for. It makes what package json can decode into that
// type without an error, and gathers what cannot be. The YAML libraries that decode by themselves name no lines, or no
// fields, or take True for true and yes for both.
type walk struct {
	lines    lines
	problems []problem
}

func (w *walk) add(n *yaml.Node, path, format string, args ...any) {
	w.problems = append(w.problems, problem{field: path, line: n.Line, text: fmt.Sprintf(format, args...)})
}

// document reads a whole configuration.
func (w *walk) document(n *yaml.Node) map[string]any {
	tree, _ := w.object(n, reflect.TypeFor[Config](), "").(map[string]any)
	var header []problem
	for _, f := range [][2]string{{"apiVersion", APIVersion}, {"kind", Kind}} {
		if tree[f[0]] != f[1] {
			header = append(header, problem{field: f[0], line: w.lines[f[0]], text: "it is not " + f[1]})
		}
	}
	if header != nil { // nothing else is worth reading in the file of another program
		w.problems = header
	}
	return tree
}

func (w *walk) blamed(path string) bool {
	for _, p := range w.problems {
		if p.field == path {
			return true
		}
	}
	return false
}

// value reads a node as a value of the type; nil if it is null or wrong.
func (w *walk) value(n *yaml.Node, t reflect.Type, path string) any {
	w.lines[path] = n.Line
	switch {
	case n.Kind == yaml.AliasNode:
		w.add(n, path, "aliases are not read: write the value")
		return nil
	case n.Kind == yaml.ScalarNode && n.ShortTag() == "!!null":
		return nil
	case t == reflect.TypeFor[Static]() && n.Kind == yaml.ScalarNode:
		return map[string]any{"address": w.scalar(n, reflect.TypeFor[string](), path)}
	case t == reflect.TypeFor[metav1.Duration]():
		return w.scalar(n, t, path)
	case t.Kind() == reflect.Struct:
		return w.object(n, t, path)
	case t.Kind() == reflect.Slice:
		return w.list(n, t, path)
	}
	return w.scalar(n, t, path)
}

func (w *walk) object(n *yaml.Node, t reflect.Type, path string) any {
	if n.Kind != yaml.MappingNode {
		w.add(n, path, "got %s where fields belong", describe(n))
		return nil
	}
	fields, out := fieldsOf(t), map[string]any{}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		key, value := n.Content[i], n.Content[i+1]
		name := strings.TrimPrefix(path+"."+key.Value, ".")
		inner, known := fields[key.Value]
		switch {
		case key.Kind != yaml.ScalarNode || !known:
			w.add(key, name, "there is no such field%s", similar(key.Value, fields))
		case seen[key.Value]:
			w.add(key, name, "it is given twice")
		default:
			if v := w.value(value, inner, name); v != nil {
				out[key.Value] = v
			}
		}
		seen[key.Value] = true
	}
	return out
}

// fieldsOf returns the types of the fields by their names in files, those of an embedded struct too.
func fieldsOf(t reflect.Type) map[string]reflect.Type {
	out := map[string]reflect.Type{}
	for f := range t.Fields() {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if f.Anonymous && name == "" {
			for name, inner := range fieldsOf(f.Type) {
				out[name] = inner
			}
			continue
		}
		out[name] = f.Type
	}
	return out
}

// similar names the field that was probably meant.
func similar(name string, fields map[string]reflect.Type) string {
	for field := range fields {
		if strings.EqualFold(field, name) {
			return ": it is spelled " + field
		}
	}
	return ""
}

func (w *walk) list(n *yaml.Node, t reflect.Type, path string) any {
	if n.Kind != yaml.SequenceNode {
		w.add(n, path, "got %s where a list belongs", describe(n))
		return nil
	}
	out := make([]any, 0, len(n.Content))
	for i, item := range n.Content {
		at := fmt.Sprintf("%s[%d]", path, i)
		v := w.value(item, t.Elem(), at)
		if v == nil && !w.blamed(at) {
			w.add(item, at, "it is empty")
		}
		out = append(out, v)
	}
	return out
}

// scalar reads a single value. Text is what is written, with quotes or without: a zone may be called 1, or no.
func (w *walk) scalar(n *yaml.Node, t reflect.Type, path string) any {
	if n.Kind != yaml.ScalarNode || n.ShortTag() == "!!binary" {
		w.add(n, path, "got %s where %s belongs", describe(n), kindName(t))
		return nil
	}
	if t == reflect.TypeFor[metav1.Duration]() {
		d, err := time.ParseDuration(n.Value)
		if err != nil {
			w.add(n, path, "%q is not a duration such as 1s, 500ms or 1h30m", n.Value)
			return nil
		}
		return d.String()
	}
	if t.Kind() == reflect.String {
		return n.Value
	}
	out := reflect.New(t)
	tags := map[reflect.Kind]string{reflect.Bool: "!!bool", reflect.Int: "!!int", reflect.Float64: "!!int !!float"}[t.Kind()]
	f, isFloat := out.Interface().(*float64)
	if !strings.Contains(tags, n.ShortTag()) || n.Decode(out.Interface()) != nil || isFloat && (math.IsNaN(*f) || math.IsInf(*f, 0)) {
		w.add(n, path, "got %s where %s belongs", describe(n), kindName(t))
		return nil
	}
	return out.Elem().Interface()
}

// kindName says what belongs into a field.
func kindName(t reflect.Type) string {
	switch t.Kind() {
	case reflect.Bool:
		return "true or false"
	case reflect.Int:
		return "a whole number"
	case reflect.Float64:
		return "a number"
	case reflect.String:
		return "text"
	}
	return "a duration such as 1s"
}

// describe says what a node is.
func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return "fields"
	case yaml.SequenceNode:
		return "a list"
	case yaml.AliasNode:
		return "an alias"
	}
	const most = 40 // what is quoted of a value, in bytes
	text := fmt.Sprintf("%q", n.Value[:min(len(n.Value), most)])
	if len(n.Value) > most {
		text += " and more"
	}
	if n.Style&(yaml.SingleQuotedStyle|yaml.DoubleQuotedStyle) != 0 {
		text += " in quotes"
	}
	return text
}
