package cluster

import (
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzLabels gives names, one a line, labels: valid ones, each its own, whatever the order of the names is.
func FuzzLabels(f *testing.F) {
	f.Add("a/b\na:b\na-b")
	f.Add("Prod\nprod\nPROD\n-prod-")
	f.Add("svc\npod")
	f.Add("xn--a\nx-xn--a\n🙂\n\n.")
	f.Add(strings.Repeat("a", 63) + "\n" + strings.Repeat("a", 64) + "\n" + strings.Repeat("a-", 40))
	label := regexp.MustCompile(`^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$`)
	f.Fuzz(func(t *testing.T, text string) {
		names := slices.Compact(slices.Sorted(strings.SplitSeq(text, "\n")))
		got, owner := labels(names), map[string]string{}
		for _, name := range names {
			l := got[name]
			if !label.MatchString(l) || strings.HasPrefix(l, "xn--") {
				t.Errorf("%q has the label %q", name, l)
			}
			if other, taken := owner[l]; taken {
				t.Errorf("%q and %q have the label %q", name, other, l)
			}
			owner[l] = name
			if label.MatchString(name) && !strings.HasPrefix(name, "xn--") && name != "svc" && name != "pod" && l != name {
				t.Errorf("%q is a label and has %q", name, l)
			}
		}
		slices.Reverse(names)
		if d := cmp.Diff(got, labels(names)); d != "" {
			t.Errorf("in another order:\n%s", d)
		}
	})
}
