package guard

import (
	"net/http"
	"net/url"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// messy is a path that nobody has in earnest.
const messy = "/x%2F%5C%2e%2e%25255C%5C%255C%2525%23%00%5C%2e%2e%255C%252F%00a%23%2500/../..b"

// TestManyFormsHideNothing holds that forms that were not looked at are not let pass.
func TestManyFormsHideNothing(t *testing.T) {
	p := "/api/v1/namespaces/a/services/b/proxy" + messy
	for _, c := range []Config{{AcceptPaths: ".*", AcceptHosts: ".*"}, {Disabled: true, ReadOnly: true}} {
		g, err := New(c)
		if err != nil {
			t.Fatal(err)
		}
		if g.Check(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: "/"}}, API, p) == nil {
			t.Errorf("%+v: not refused", c)
		}
	}
}

func TestForms(t *testing.T) {
	tests := []struct {
		escaped string
		want    []string
		doubt   bool
	}{
		{"/", []string{"/"}, false},
		{"/api/v1/pods", []string{"/api/v1/pods"}, false},
		{"/a//b", []string{"/a//b", "/a/b"}, false},
		{"/a/../b/", []string{"/a/../b/", "/b/"}, false},
		{"/a%2Fb", []string{"/a/b"}, false},
		{"/a%2F%2Fb", []string{"/a//b", "/a/b"}, false},
		{"/a%252Fb", []string{"/a%2Fb", "/a/b"}, false},
		{"/a/b%2Fc/../d", []string{"/a/b/c/../d", "/a/b/d", "/a/d"}, false}, // cleaned after it was decoded, and before
		{"/a/..", []string{"/a/..", "/"}, false},
		{"/..", []string{"/..", "/"}, true},
		{"/a/../../b", []string{"/a/../../b", "/b"}, true},
		{`/a\b`, []string{`/a\b`, "/a/b"}, false},
		{"/a%3Fb", []string{"/a?b", "/a"}, false},
		{"/%zz", []string{"/%zz"}, false},
		{"/%", []string{"/%"}, false},
		{"", []string{"", "/"}, false},
		{"a", []string{"a", "/a"}, false},
	}
	for _, tt := range tests {
		got := formsOf(tt.escaped)
		slices.Sort(got.all[1:])
		if diff := cmp.Diff(tt.want, got.all); diff != "" || got.doubt != tt.doubt {
			t.Errorf("%s: doubt %v, forms (-want +got):\n%s", tt.escaped, got.doubt, diff)
		}
	}
	if deep := formsOf("/%25252525252e"); !deep.doubt || len(deep.all) != maxDecodes {
		t.Errorf("deeply escaped: %+v", deep)
	}
	if many := formsOf(messy); !many.tooMany || len(many.all) > maxForms {
		t.Errorf("%d forms, too many: %v", len(many.all), many.tooMany)
	}
	for _, p := range []string{"/wiki/A%2FB%3F%23", "/a//b/../c%252Fd%3Fe/", "/x%5Cy/..%2Fz%2F%2F%3F"} {
		if f := formsOf(p); f.tooMany || len(f.all) > maxForms/2 {
			t.Errorf("%s has %d forms, too many: %v", p, len(f.all), f.tooMany)
		}
	}
}

// FuzzForms holds that the quick way out changes nothing, and that the forms are those of net/url and package path.
func FuzzForms(f *testing.F) {
	for _, p := range []string{"/", "/api/v1/pods", "/a//b/", "/a/../%2e%2e/b", "/%252F", `\`, "/a;b", "/%00?#", "x", "/.a", "/a."} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, escaped string) {
		got := formsOf(escaped)
		if decoded, err := url.PathUnescape(escaped); err == nil && got.all[0] != decoded {
			t.Errorf("%q is %q first, want %q", escaped, got.all[0], decoded)
		}
		if len(got.all) > maxForms {
			t.Errorf("%q: %d forms", escaped, len(got.all))
		}
		if !got.tooMany && !slices.Contains(got.all, path.Clean("/"+got.all[0])) && !strings.HasSuffix(got.all[0], "/") {
			t.Errorf("%q: forms %q lack the cleaned one", escaped, got.all)
		}
		if !isPlain(escaped) {
			return
		}
		s := search{seen: map[string]bool{}}
		s.add(escaped, 0)
		for i := 0; i < len(s.queue); i++ {
			s.expand(s.queue[i])
		}
		if diff := cmp.Diff([]string{escaped}, s.out.all); diff != "" || s.out.doubt {
			t.Errorf("%q is plain, and has these forms (-want +got):\n%s", escaped, diff)
		}
	})
}

// FuzzClass holds that the quick look misses no class.
func FuzzClass(f *testing.F) {
	for _, p := range []string{"/api/v1/namespaces/a/pods/b/exec", "/PODS/x/Attach", "/nodes/a/proxy/RUN", "/proxy/nodes/a/cri", "/pods/x/portForwar\u212a", "/pods/\xff/exec", "/NODES/x/PROXY//x/../run"} {
		f.Add(p)
	}
	f.Fuzz(func(t *testing.T, p string) {
		if class, _ := findClass(p); class != "" && !mayHaveClass(p) {
			t.Errorf("%q has class %s and is not looked at", p, class)
		}
	})
}

// FuzzPattern holds that what is known of an expression without running it is right.
func FuzzPattern(f *testing.F) {
	for _, s := range []string{DefaultAcceptPaths, `^localhost$`, `^\[::1\]$`, `^/api/.*/pods/.*/exec`, `a*b?$`, `(?i)k`, `(?m)^a$`, `x{0}`, `x+`, `^x{2,}y`, `^(a)$`, `é`, `.*?^`, `a|b`, `()`, `^$`, `\x{fffd}`} {
		f.Add(s, "/api/v1/pods/a/exec\na\xff")
		f.Add(s, "localhost")
		f.Add(s, "")
	}
	f.Fuzz(func(t *testing.T, expression, text string) {
		re, err := regexp.Compile(expression)
		if err != nil {
			return
		}
		p := newPattern(re)
		if got, want := p.match(text), re.MatchString(text); got != want {
			t.Errorf("%q in %q: %v, want %v (%+v)", expression, text, got, want, p)
		}
	})
}

func TestPatternsAreQuick(t *testing.T) {
	for expression, want := range map[string]pattern{
		`^.*`:                     {always: true},
		`^localhost$`:             {whole: true, needs: []string{"localhost"}},
		`^\[::1\]$`:               {whole: true, needs: []string{"[::1]"}},
		`^/api/.*/pods/.*/attach`: {needs: []string{"/api/", "/pods/", "/attach"}},
		`(?i)pods`:                {},
	} {
		p := newPattern(regexp.MustCompile(expression))
		if p.always != want.always || p.whole != want.whole || !slices.Equal(p.needs, want.needs) {
			t.Errorf("%s: %+v, want %+v", expression, p, want)
		}
	}
}

// FuzzHost holds that only names of this computer pass the default list.
func FuzzHost(f *testing.F) {
	for _, h := range []string{"localhost", "LOCALHOST.:1", "[::1]:8001", "::1", "[::1%25lo]", "[0::1]", "evil.example:80", "[localhost]", "127.0.0.1:x", "[::1", "]", "[]", "1::"} {
		f.Add(h)
	}
	g, err := New(Config{AcceptHosts: DefaultAcceptHosts})
	if err != nil {
		f.Fatal(err)
	}
	loopback := regexp.MustCompile(`^((?i:localhost)\.?|127\.0\.0\.1\.?|\[(?i:localhost\.?|127\.0\.0\.1\.?)\]|\[?[0:.]*:[0:.]*1\]?)(:[^:]*)?$`)
	f.Fuzz(func(t *testing.T, host string) {
		if g.acceptsHost(host) && !loopback.MatchString(host) {
			t.Errorf("host %q is accepted", host)
		}
	})
}

// FuzzRule holds that a rule that is taken denies something.
func FuzzRule(f *testing.F) {
	for _, s := range []string{"secrets", "deployments.apps", "pods/exec", "*.rbac.authorization.k8s.io", "*/scale", "*", "a.v1.b", "A-b.c/d", ".", "/"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, text string) {
		r, err := parseRule(text)
		if err != nil {
			return
		}
		resource, sub, prefix := r.resource, r.subresource, "/api/v1"
		if r.group != "" {
			prefix = "/apis/" + r.group + "/v1"
		}
		if resource == "*" {
			resource = "things"
		}
		p := prefix + "/namespaces/a/" + resource + "/b/" + strings.ReplaceAll(sub, "*", "status")
		g := Guard{disabled: true, deny: []rule{r}}
		err = g.Check(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: p}}, API, p)
		if refusal, ok := err.(*Refusal); !ok || refusal.Rule != ruleDeny {
			t.Errorf("rule %q does not deny %s: %v", text, p, err)
		}
	})
}
