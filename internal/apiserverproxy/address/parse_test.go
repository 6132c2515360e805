package address_test

import (
	"net/http"
	"net/url"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/sets"
	"k8s.io/apiserver/pkg/endpoints/request"

	"varco.dev/internal/apiserverproxy/address"
)

const (
	core       = "/api/v1"
	aggregated = "/apis/proxy.varco.dev/v1"
)

// info is what kube-apiserver reads from a path: the object that authorization and audit are about.
func info(t testing.TB, path string) *request.RequestInfo {
	t.Helper()
	f := request.RequestInfoFactory{APIPrefixes: sets.NewString("api", "apis"), GrouplessAPIPrefixes: sets.NewString("api")}
	i, err := f.NewRequestInfo(&http.Request{Method: http.MethodGet, URL: &url.URL{Path: path}})
	if err != nil {
		return &request.RequestInfo{}
	}
	return i
}

// agree fails unless kube-apiserver reads the same object from the decoded path.
func agree(t testing.TB, escaped string, a address.Address) {
	t.Helper()
	decoded, err := url.PathUnescape(escaped)
	if err != nil {
		t.Fatalf("%q: %v", escaped, err)
	}
	type object struct{ Namespace, Resource, Name, Subresource string }
	i := info(t, decoded)
	got := object{a.Namespace, a.Kind.Resource(), a.ID, "proxy"}
	if d := cmp.Diff(object{i.Namespace, i.Resource, i.Name, i.Subresource}, got); d != "" || !i.IsResourceRequest {
		t.Errorf("%q is another object than for RequestInfo (-want +got):\n%s", escaped, d)
	}
	if a.Prefix+a.Path != escaped {
		t.Errorf("%q: prefix %q and path %q are not the whole", escaped, a.Prefix, a.Path)
	}
}

func pod(id, name, port string) address.Address {
	return address.Address{Kind: address.Pod, Namespace: "ns", ID: id, Name: name, Port: port,
		Prefix: "/api/v1/namespaces/ns/pods/" + id + "/proxy"}
}

func with(a address.Address, change func(*address.Address)) address.Address {
	change(&a)
	return a
}

func TestParse(t *testing.T) {
	long := strings.Repeat("a", 1<<20)
	for path, want := range map[string]address.Address{
		// the grammar
		"/api/v1/namespaces/ns/pods/web/proxy":     pod("web", "web", ""),
		"/api/v1/namespaces/ns/pods/web:80/proxy":  pod("web:80", "web", "80"),
		"/api/v1/namespaces/ns/pods/web:/proxy":    pod("web:", "web", ""),
		"/api/v1/namespaces/ns/pods/:web:80/proxy": pod(":web:80", "web", "80"),
		"/api/v1/namespaces/ns/services/https:web:443/proxy/": {Kind: address.Service, Namespace: "ns", ID: "https:web:443",
			Scheme: "https", Name: "web", Port: "443", Prefix: "/api/v1/namespaces/ns/services/https:web:443/proxy", Path: "/"},
		"/api/v1/namespaces/ns/services/http:web:/proxy/a/b": {Kind: address.Service, Namespace: "ns", ID: "http:web:",
			Scheme: "http", Name: "web", Prefix: "/api/v1/namespaces/ns/services/http:web:/proxy", Path: "/a/b"},
		"/api/v1/nodes/n1:10250/proxy/pods": {Kind: address.Node, ID: "n1:10250", Name: "n1", Port: "10250",
			Prefix: "/api/v1/nodes/n1:10250/proxy", Path: "/pods"},

		// the rest stays as it is
		"/api/v1/namespaces/ns/pods/web/proxy//a/%2F/./../b/": with(pod("web", "web", ""), func(a *address.Address) {
			a.Path = "//a/%2F/./../b/"
		}),
		"/api/v1/namespaces/ns/pods/web/proxy/proxy": with(pod("web", "web", ""), func(a *address.Address) { a.Path = "/proxy" }),
		"/api/v1/namespaces/ns/pods/web/proxy/" + long: with(pod("web", "web", ""), func(a *address.Address) {
			a.Path = "/" + long
		}),

		// escapes in names
		"/api/v1/namespaces/ns/pods/web%3A80/proxy/x": with(pod("web:80", "web", "80"), func(a *address.Address) {
			a.Prefix, a.Path = "/api/v1/namespaces/ns/pods/web%3A80/proxy", "/x"
		}),
		"/api/v1/namespaces/n%73/pods/web/proxy": with(pod("web", "web", ""), func(a *address.Address) {
			a.Prefix = "/api/v1/namespaces/n%73/pods/web/proxy"
		}),

		// words of the grammar as names, and names that no object has
		"/api/v1/nodes/proxy/proxy": {Kind: address.Node, ID: "proxy", Name: "proxy", Prefix: "/api/v1/nodes/proxy/proxy"},
		"/api/v1/namespaces/proxy/pods/proxy/proxy": with(pod("proxy", "proxy", ""), func(a *address.Address) {
			a.Namespace, a.Prefix = "proxy", "/api/v1/namespaces/proxy/pods/proxy/proxy"
		}),
		"/api/v1/namespaces/watch/pods/watch/proxy": with(pod("watch", "watch", ""), func(a *address.Address) {
			a.Namespace, a.Prefix = "watch", "/api/v1/namespaces/watch/pods/watch/proxy"
		}),
		"/api/v1/namespaces/status/pods/status/proxy": with(pod("status", "status", ""), func(a *address.Address) {
			a.Namespace, a.Prefix = "status", "/api/v1/namespaces/status/pods/status/proxy"
		}),
		"/api/v1/namespaces/ns/pods/UPPER:HTTP/proxy":      pod("UPPER:HTTP", "UPPER", "HTTP"),
		"/api/v1/namespaces/ns/pods/" + long + "/proxy":    pod(long, long, ""),
		"/api/v1/namespaces/ns/pods/web:99999/proxy":       pod("web:99999", "web", "99999"),
		"/api/v1/namespaces/ns/pods/web;a=b/proxy":         pod("web;a=b", "web;a=b", ""),
		"/api/v1/namespaces/ns/pods/web:80@evil.com/proxy": pod("web:80@evil.com", "web", "80@evil.com"),
	} {
		t.Run(short(path), func(t *testing.T) {
			got, ok, err := address.Parse(core, path)
			if !ok || err != nil {
				t.Fatalf("ok %t, error %v", ok, err)
			}
			if d := cmp.Diff(want, got); d != "" {
				t.Errorf("(-want +got):\n%s", d)
			}
			agree(t, path, got)
		})
	}
}

func short(s string) string { return s[:min(len(s), 80)] }

func TestParseAggregated(t *testing.T) {
	for path, want := range map[string]address.Address{
		"/apis/proxy.varco.dev/v1/namespaces/ns/services/web:http/proxy/x": {Kind: address.Service, Namespace: "ns",
			ID: "web:http", Name: "web", Port: "http",
			Prefix: "/apis/proxy.varco.dev/v1/namespaces/ns/services/web:http/proxy", Path: "/x"},
		"/apis/proxy.varco.dev/v1/nodes/n1/proxy/": {Kind: address.Node, ID: "n1", Name: "n1",
			Prefix: "/apis/proxy.varco.dev/v1/nodes/n1/proxy", Path: "/"},
	} {
		got, ok, err := address.Parse(aggregated, path)
		if d := cmp.Diff(want, got); d != "" || !ok || err != nil {
			t.Errorf("%s: ok %t, error %v (-want +got):\n%s", path, ok, err, d)
		}
		agree(t, path, got)
		if _, ok, _ := address.Parse(core, path); ok {
			t.Errorf("%s is below another base", path)
		}
	}
	if _, ok, _ := address.Parse(aggregated, "/api/v1/nodes/n1/proxy"); ok {
		t.Error("a path of the core group was taken for one of the aggregated group")
	}
}

// Paths of others: they are passed on, and RequestInfo reads no proxy subresource that kube-apiserver has from them.
func TestParseOthers(t *testing.T) {
	for _, path := range []string{
		"", "/", "/api", "/api/v1", "/api/v1/", "*",
		"/api/v1x/nodes/n/proxy", "/api/v1xnodes/n/proxy", "/api/v2/nodes/n/proxy", "/xapi/v1/nodes/n/proxy", "api/v1/nodes/n/proxy",
		"/apis/apps/v1/namespaces/ns/pods/web/proxy",
		"//api/v1/nodes/n/proxy", "/api//v1/nodes/n/proxy", "/api/v1//nodes/n/proxy", "/./api/v1/nodes/n/proxy",
		"/API/v1/nodes/n/proxy", "/api/v1/Nodes/n/proxy", "/api/v1/nodes/n/Proxy", "/api/v1/namespaces/ns/PODS/web/proxy",
		"/api/v1/nodes", "/api/v1/nodes/n", "/api/v1/nodes/proxy", "/api/v1/nodes/n/status", "/api/v1/nodes/n/proxyx/proxy",
		"/api/v1/nodes/n/x/proxy", "/api/v1/nodes/n//proxy", "/api/v1/nodes/n/status/proxy",
		"/api/v1/pods/web/proxy", "/api/v1/services/web/proxy", "/api/v1/namespaces/ns/nodes/n/proxy",
		"/api/v1/namespaces/ns/proxy", "/api/v1/namespaces/ns/endpoints/web/proxy",
		"/api/v1/namespaces/ns/pods/web/exec", "/api/v1/namespaces/ns/pods/web/portforward", "/api/v1/namespaces/ns/pods/web",
		"/api/v1/namespaces//ns/pods/web/proxy", "/api/v1/namespaces/ns//pods/web/proxy",
		"/api/v1/watch/namespaces/ns/pods/web/proxy", "/api/v1/watch/nodes/n/proxy",
		"/api/v1/proxy/namespaces/ns/pods/web/proxy", "/api/v1/proxy/nodes/n",
		"/api/v1/nodes/n%", "/api/v1/nodes/n%252Fproxy",
	} {
		if a, ok, err := address.Parse(core, path); ok {
			t.Errorf("%q: taken for %+v, error %v", path, a, err)
		}
		if served(t, path) {
			t.Errorf("%q: kube-apiserver serves it", path)
		}
	}
}

// served tells whether kube-apiserver serves a proxy subresource at a decoded path: it routes by prefix and segments,
// without the special verbs, and RequestInfo names the object.
func served(t testing.TB, path string) bool {
	t.Helper()
	i := info(t, path)
	namespaced := (i.Resource == "pods" || i.Resource == "services") && i.Namespace != ""
	node := i.Resource == "nodes" && i.Namespace == ""
	return strings.HasPrefix(path, core+"/") && i.Verb != "watch" && i.Verb != "proxy" && i.Subresource == "proxy" &&
		(namespaced || node) && i.Name != ""
}

func TestParseWrong(t *testing.T) {
	for path, want := range map[string]string{
		"/api/v1/namespaces/ns/services/a:b:c:d/proxy/x": `invalid service request "a:b:c:d"`,
		"/api/v1/namespaces/ns/pods/ftp:a:1/proxy":       `invalid pod request "ftp:a:1"`,
		"/api/v1/namespaces/ns/pods/HTTPS:a:1/proxy":     `invalid pod request "HTTPS:a:1"`,
		"/api/v1/namespaces/ns/pods/http:a:1:2/proxy":    `invalid pod request "http:a:1:2"`,
		"/api/v1/namespaces/ns/pods/:a:1:/proxy":         `invalid pod request ":a:1:"`,
		"/api/v1/namespaces/ns/pods/:80/proxy":           `invalid pod request ":80"`,
		"/api/v1/nodes/http::80/proxy":                   `invalid node request "http::80"`,
		"/api/v1/nodes/%3A/proxy":                        `invalid node request ":"`,

		"/api/v1/nodes//proxy":                        "name must be provided",
		"/api/v1/namespaces/ns/pods//proxy":           "name must be provided",
		"/api/v1/namespaces//pods/web/proxy":          "namespace must be provided",
		"/api/v1/nodes/../proxy":                      `invalid name ".." in the path`,
		"/api/v1/nodes/%2e%2E/proxy":                  `invalid name ".." in the path`,
		"/api/v1/nodes/./proxy":                       `invalid name "." in the path`,
		"/api/v1/namespaces/../pods/web/proxy":        `invalid namespace ".." in the path`,
		"/api/v1/namespaces/ns/pods/a%2Fb/proxy":      `invalid name "a/b" in the path`,
		"/api/v1/namespaces/a%2fb/pods/web/proxy":     `invalid namespace "a/b" in the path`,
		"/api/v1/namespaces/ns%2Fpods/pods/web/proxy": `invalid namespace "ns/pods" in the path`,
		"/api/v1/nodes/n%2Fproxy/proxy":               `invalid name "n/proxy" in the path`,
		"/api/v1/nodes/n%2Fproxy":                     `invalid node request: escaped characters before the end of "/proxy"`,
		"/api/v1/nodes%2Fn/proxy/x":                   `invalid node request: escaped characters before the end of "/proxy"`,
		"/api/v1/nodes/n/prox%79":                     `invalid node request: escaped characters before the end of "/proxy"`,
		"/%61pi/v1/nodes/n/proxy":                     `invalid node request: escaped characters before the end of "/proxy"`,
		"/api/v1/namespaces/ns/pods%2Fweb/proxy":      `invalid pod request: escaped characters before the end of "/proxy"`,
		"/api/v1/namespaces/ns/p%6Fds/web/proxy/%2f":  `invalid pod request: escaped characters before the end of "/proxy"`,

		"/api/v1/nodes/a%25b/proxy":                `Name parameter invalid: "a%b": may not contain '%'`,
		"/api/v1/nodes/https:..:1/proxy":           `Name parameter invalid: "..": may not be '..'`,
		"/api/v1/namespaces/a%2525/pods/web/proxy": `Namespace parameter invalid: "a%25": may not contain '%'`,
	} {
		a, ok, err := address.Parse(core, path)
		if !ok || !apierrors.IsBadRequest(err) {
			t.Errorf("%q: ok %t, error %v", path, ok, err)
			continue
		}
		if err.Error() != want {
			t.Errorf("%q: error %q, want %q", path, err, want)
		}
		decoded, _ := url.PathUnescape(path)
		if i := info(t, decoded); served(t, decoded) && (i.Name != a.ID || i.Namespace != a.Namespace) &&
			!strings.Contains(a.ID+a.Namespace, "/") {
			t.Errorf("%q: the object to authorize is %q in %q, for RequestInfo %q in %q", path, a.ID, a.Namespace, i.Name, i.Namespace)
		}
	}
}

// The cases are those of upstream's port_split_test.go.
func TestParseID(t *testing.T) {
	for _, c := range []struct {
		id, scheme, name, port string
		valid                  bool
	}{
		{"aoeu:asdf", "", "aoeu", "asdf", true},
		{"http:aoeu:asdf", "http", "aoeu", "asdf", true},
		{"https:aoeu:", "https", "aoeu", "", true},
		{"https:aoeu:asdf", "https", "aoeu", "asdf", true},
		{"aoeu:", "", "aoeu", "", true},
		{"aoeu", "", "aoeu", "", true},
		{":asdf", "", "", "", false},
		{"aoeu:asdf:htns", "", "", "", false},
		{"http::asdf", "", "", "", false},
		{"http::", "", "", "", false},
		{"", "", "", "", false},
	} {
		scheme, name, port, valid := utilnet.SplitSchemeNamePort(c.id)
		if scheme != c.scheme || name != c.name || port != c.port || valid != c.valid {
			t.Errorf("%q: the case is not upstream's any more", c.id)
		}
		a, ok, err := address.Parse(core, "/api/v1/nodes/"+c.id+"/proxy")
		if !ok || (err == nil) != c.valid || a.Scheme != c.scheme || a.Name != c.name || a.Port != c.port {
			t.Errorf("%q: ok %t, error %v, %+v", c.id, ok, err, a)
		}
	}
}

// The paths are those of upstream's requestinfo_test.go.
func TestParseRequestInfo(t *testing.T) {
	for path, proxy := range map[string]bool{
		"/api/v1/namespaces":                      false,
		"/api/v1/namespaces/other":                false,
		"/api/v1/namespaces/other/pods":           false,
		"/api/v1/namespaces/other/pods/foo":       false,
		"/api/v1/pods":                            false,
		"/api/v1/proxy/namespaces/other/pods/foo": false,
		"/api/v1/proxy/namespaces/other/pods/foo/subpath/not/a/subresource": false,
		"/api/v1/watch/pods":                              false,
		"/api/v1/watch/namespaces/other/pods":             false,
		"/api/v1/namespaces/other/pods/foo/status":        false,
		"/api/v1/namespaces/other/pods/foo/proxy/subpath": true,
		"/api/v1/namespaces/other/finalize":               false,
		"/api/v1/namespaces/other/status":                 false,
		"/api/v1/nodes":                                   false,
		"/apis/extensions/v1/namespaces/other/pods":       false,
		"/apis/extensions/v1beta3/namespaces/other/pods":  false,
		"/":                           false,
		"/api/version/":               false,
		"/apis/group/version/":        false,
		"/badprefix/version/resource": false,
		"/apis/version/resource":      false,
		"/api/version/resource":       false,
		"/apis/group/version/resource/name/subresource":       false,
		"/api/version/resource/name/subresource":              false,
		"/apis/batch/v1/job/foo/scale":                        false,
		"/not-api/version/resource":                           false,
		"/api/v1/namespaces/other/services/foo/proxy":         true,
		"/api/v1/namespaces/other/services/foo:p/proxy/a/b/c": true,
		"/api/v1/nodes/foo/proxy":                             true,
	} {
		a, ok, err := address.Parse(core, path)
		if ok != proxy || err != nil || served(t, path) != proxy {
			t.Errorf("%q: ok %t, error %v, RequestInfo %+v", path, ok, err, info(t, path))
		}
		if ok {
			agree(t, path, a)
		}
	}
}

func TestParseAllocatesNothing(t *testing.T) {
	got := testing.AllocsPerRun(100, func() {
		if _, ok, err := address.Parse(core, "/api/v1/namespaces/ns/services/https:web:443/proxy/a/b?c"); !ok || err != nil {
			t.Error(ok, err)
		}
	})
	if got > 0 {
		t.Errorf("%v allocations", got)
	}
}
