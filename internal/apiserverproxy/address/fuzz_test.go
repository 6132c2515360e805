package address_test

import (
	"net/url"
	"strings"
	"testing"

	utilnet "k8s.io/apimachinery/pkg/util/net"

	"varco.dev/internal/apiserverproxy/address"
)

// FuzzParse compares with RequestInfo and with SplitSchemeNamePort of upstream, in both directions: what is parsed is the
// object that is authorized, and what is left to others is nothing that kube-apiserver would serve as a proxy itself.
func FuzzParse(f *testing.F) {
	for _, s := range []string{
		"/api/v1/nodes/n/proxy", "/api/v1/namespaces/ns/pods/https:web:443/proxy//a%2Fb/..", "/api/v1/nodes/n%2Fproxy/x",
		"/api/v1/namespaces/ns%2Fpods/a/proxy", "/api/v1//namespaces/ns/pods/a/proxy", "/api/v1/watch/nodes/n/proxy",
		"/api/v1/namespaces/status/services/a/proxy", "/api/v1/namespaces/ns/pods//proxy", "/api/v1/nodes/%2e%2e/proxy",
		"/api/v1/proxy/nodes/n/x", "/%61pi/v1/nodes/n/proxy", "/api/v1/nodes/a%25b/proxy",
	} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		u, err := url.ParseRequestURI(s) // as a server reads the request line
		if err != nil || !strings.HasPrefix(s, "/") {
			return
		}
		escaped := u.EscapedPath()
		a, ok, err := address.Parse(core, escaped)
		switch {
		case ok && err == nil:
			agree(t, escaped, a)
			scheme, name, port, valid := utilnet.SplitSchemeNamePort(a.ID)
			if !valid || scheme != a.Scheme || name != a.Name || port != a.Port {
				t.Errorf("%q is read as %+v", a.ID, a)
			}
		case !ok && served(t, u.Path):
			t.Errorf("%q is left to others, and is %+v", escaped, info(t, u.Path))
		}
		if today, gone := address.Gone(escaped); gone {
			checkGone(t, escaped, today, ok)
		}
	})
}

// checkGone fails unless today's path of an old one is parsed, and names the same object.
func checkGone(t *testing.T, old, today string, current bool) {
	t.Helper()
	a, ok, err := address.Parse(core, today)
	if !ok || err != nil || current {
		t.Fatalf("%q becomes %q: ok %t, error %v, still in use %t", old, today, ok, err, current)
	}
	decoded, _ := url.PathUnescape(strings.Replace(old, "/redirect/", "/proxy/", 1))
	if i := info(t, decoded); i.Name != a.ID || i.Namespace != a.Namespace || i.Resource != a.Kind.Resource() {
		t.Errorf("%q becomes %+v, and was %+v", old, a, i)
	}
}

// FuzzID compares the grammar of IDs with upstream's, whatever is in them.
func FuzzID(f *testing.F) {
	for _, s := range []string{"a", "a:b", "http:a:b", "https::", ":", "", "::", ":a:", "a:b:c:d", "a/b", "%", "http:..:1"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, id string) {
		a, ok, err := address.Parse(core, "/api/v1/nodes/"+url.PathEscape(id)+"/proxy")
		if !ok {
			t.Fatalf("%q is no ID", id)
		}
		scheme, name, port, valid := utilnet.SplitSchemeNamePort(id)
		whole := id != "." && id != ".." && !strings.Contains(id, "/")
		nameable := name != "." && name != ".." && !strings.Contains(name, "%")
		if valid = valid && whole && nameable; (err == nil) != valid {
			t.Fatalf("%q: error %v, valid for upstream: %t", id, err, valid)
		}
		if err == nil && (scheme != a.Scheme || name != a.Name || port != a.Port || id != a.ID) {
			t.Errorf("%q is read as %+v", id, a)
		}
	})
}
