package config_test

import (
	"encoding/json"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/apiserverlb/config"
)

// TestReference compares the table of the README with the fields and their defaults.
func TestReference(t *testing.T) {
	text, err := os.ReadFile("../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, table, ok := strings.Cut(string(text), "<!-- config:begin -->")
	table, _, end := strings.Cut(table, "<!-- config:end -->")
	if !ok || !end {
		t.Fatal("README.md has no table between <!-- config:begin --> and <!-- config:end -->")
	}
	var got []string
	for _, row := range regexp.MustCompile("(?m)^\\| `([^`]+)` \\|(?: `([^`]+)`)? \\| .+ \\|$").FindAllStringSubmatch(table, -1) {
		got = append(got, row[1]+" = "+row[2])
	}
	var want []string
	documented(reflect.TypeFor[config.Config](), defaults(t), "", &want)
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("the table is not that of the fields, in their order (-fields +table):\n%s", diff)
	}
}

func defaults(t *testing.T) any {
	t.Helper()
	data, err := json.Marshal(config.Default())
	if err != nil {
		t.Fatal(err)
	}
	var out any
	if err := json.Unmarshal(data, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

// documented lists the fields of a type with their defaults, in the order of the source, with [] after a list of
// objects. A list has the default of its first element.
func documented(t reflect.Type, value any, path string, out *[]string) {
	switch {
	case t.Kind() == reflect.Slice && t.Elem().Kind() == reflect.Struct:
		documented(t.Elem(), firstOf(value), path+"[]", out)
	case t.Kind() == reflect.Slice:
		documented(t.Elem(), firstOf(value), path, out)
	case t.Kind() == reflect.Struct && t != reflect.TypeFor[metav1.Duration]():
		object, _ := value.(map[string]any)
		for f := range t.Fields() {
			name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if name == "" {
				for _, name := range []string{"apiVersion", "kind"} { // those of the embedded TypeMeta
					*out = append(*out, fmt.Sprintf("%s = %v", name, object[name]))
				}
				continue
			}
			documented(f.Type, object[name], strings.TrimPrefix(path+"."+name, "."), out)
		}
	default:
		if value == nil {
			value = zero(t)
		}
		*out = append(*out, fmt.Sprintf("%s = %v", path, value))
	}
}

func firstOf(value any) any {
	if list, _ := value.([]any); len(list) > 0 {
		return list[0]
	}
	return nil
}

// zero is shown for a field of an object that no default has.
func zero(t reflect.Type) any {
	if slices.Contains([]reflect.Kind{reflect.Bool, reflect.Int}, t.Kind()) {
		return reflect.Zero(t).Interface()
	}
	return ""
}
