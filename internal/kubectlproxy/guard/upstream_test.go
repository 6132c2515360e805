package guard_test

import (
	"math/rand/v2"
	"net/http"
	"net/http/httptest"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"k8s.io/kubectl/pkg/proxy"

	"varco.dev/internal/kubectlproxy/guard"
)

// original is kubectl proxy's filter with the same flags; the lists must be good.
func original(t testing.TB, c guard.Config) http.Handler {
	t.Helper()
	parse := func(text string) []*regexp.Regexp {
		list, err := proxy.MakeRegexpArray(text)
		if err != nil {
			t.Fatal(err)
		}
		return list
	}
	f := &proxy.FilterServer{
		AcceptPaths: parse(c.AcceptPaths), RejectPaths: parse(c.RejectPaths),
		AcceptHosts: parse(c.AcceptHosts), RejectMethods: parse(c.RejectMethods),
	}
	return f.HandlerFor(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }))
}

// compare asks both and says what is wrong: ours must refuse what the original refuses, and what else it refuses or
// accepts must have one of the known reasons.
func compare(t testing.TB, c guard.Config, method, path, host string) {
	t.Helper()
	u, err := url.ParseRequestURI(path)
	if err != nil || !strings.HasPrefix(path, "/") {
		return // a server of Go answers it with 400
	}
	r := &http.Request{Method: method, URL: u, Host: host, Header: http.Header{}}
	w := httptest.NewRecorder()
	original(t, c).ServeHTTP(w, r)
	theirs := w.Code == http.StatusOK
	rule := ask(t, mustNew(t, c), r, guard.API)
	switch {
	case theirs == (rule == ""):
	case rule == "":
		// A host that is the same name written otherwise: it must be accepted in its plain form by the original too.
		r.Host = plainHost(host)
		w = httptest.NewRecorder()
		original(t, c).ServeHTTP(w, r)
		if r.Host == host || w.Code != http.StatusOK {
			t.Errorf("%q %q at host %q with %+v: the original refuses it, and it is not refused", method, path, host, c)
		}
	case method == http.MethodConnect, rule == "allow", manyForms(u.EscapedPath()):
	default:
		t.Errorf("%q %q at host %q with %+v: refused by %q for no known reason", method, path, host, c, rule)
	}
}

var ipv6 = regexp.MustCompile(`^\[?([0-9a-fA-F:.]+:[0-9a-fA-F:.]*)\]?(:[0-9]*)?$`)

// plainHost writes a host as the default list wants it.
func plainHost(host string) string {
	if strings.HasPrefix(host, "[") && strings.Contains(host, "]:") {
		host = host[:strings.LastIndex(host, "]:")+1]
	} else if strings.Count(host, ":") == 1 {
		host, _, _ = strings.Cut(host, ":")
	}
	if addr, err := url.Parse("http://" + host); ipv6.MatchString(host) && (err != nil || addr.Port() == "") {
		if bare := strings.Trim(host, "[]"); strings.Trim(bare, "0:") == "1" {
			return "[::1]"
		}
	}
	return strings.TrimSuffix(strings.ToLower(host), ".")
}

// manyForms says whether servers may read the path in several ways.
func manyForms(escaped string) bool {
	return strings.ContainsAny(escaped, `%\`) || strings.Contains(escaped, "//") || strings.Contains(escaped, "/.")
}

var (
	methods = []string{"GET", "POST", "PUT", "DELETE", "PATCH", "OPTIONS", "HEAD", "CONNECT", "TRACE", "get", "LOOK"}
	hosts   = []string{"localhost", "localhost:8001", "LOCALHOST:1", "localhost.", "127.0.0.1", "127.0.0.1:80", "[::1]", "[::1]:8001", "::1",
		"[0:0::1]:8001", "evil.example", "evil.example:8001", "localhost.evil.example", "", "127.0.0.1.evil", "a.localhost", "[::2]", "[::1", ":80"}
	parts = []string{"/", "/", "/", "api", "apis", "v1", "pods", "nodes", "proxy", "exec", "attach", "portforward", "namespaces", "default",
		"secrets", "run", "..", ".", "%2F", "%2e%2e", "%252F", "%65xec", "EXEC", "Pods", "log", "a", "/api/v1/namespaces/a/pods/b/", "\\", "%00", "%0A", "%C3%A9"}
)

// configs are users' flags; the first has the defaults.
func configs() []guard.Config {
	return []guard.Config{
		defaults(),
		{AcceptPaths: "^/api/,^/apis/", RejectPaths: "/secrets", AcceptHosts: "^localhost$,evil", RejectMethods: "POST,PUT", AllowAll: true},
		{AcceptPaths: ".*", RejectPaths: "", AcceptHosts: ".*", RejectMethods: "", AllowAll: true},
		{AcceptPaths: "^/api/.*/pods/[^/]+$,^/$", RejectPaths: "exec$,(?i)SECRETS", AcceptHosts: `^\[::1\]$`, RejectMethods: "^(get|GET)$"},
		{},
	}
}

func TestAgainstOriginal(t *testing.T) {
	flags := configs()
	random := rand.New(rand.NewPCG(1, 2))
	pick := func(from []string) string { return from[random.IntN(len(from))] }
	for range 20_000 {
		var path strings.Builder
		path.WriteByte('/')
		for range random.IntN(12) {
			path.WriteString(pick(parts))
		}
		compare(t, flags[random.IntN(len(flags))], pick(methods), path.String(), pick(hosts))
	}
}

// TestOriginalsFaults shows what differs on purpose, by requests that the original answers otherwise.
func TestOriginalsFaults(t *testing.T) {
	tests := []struct {
		line, host   string
		theirs, ours int
	}{
		{"GET /api", "[::1]:8001", 403, 200},
		{"GET /api", "LOCALHOST:8001", 403, 200},
		{"POST /api/v1/namespaces/a/pods/b/portforward", "localhost", 200, 403},
		{"POST /api/v1/nodes/a/proxy/run/b/c/d", "localhost", 200, 403},
		{"POST /api/v1/namespaces/a/pods/b/%2565xec", "localhost", 200, 403},
		{"POST //api/v1/namespaces/a/pods/b/exec", "localhost", 200, 403}, // its mux would redirect; its filter lets it pass
		{"POST /api/v1/namespaces/a/pods/b/exec", "localhost", 403, 403},
		{"GET /api/v1/pods", "evil.example", 403, 403},
		{"GET /api/v1/pods", "localhost", 200, 200},
	}
	g, theirs := mustNew(t, defaults()), original(t, defaults())
	for _, tt := range tests {
		r := request(tt.line, "Host: "+tt.host)
		w := httptest.NewRecorder()
		theirs.ServeHTTP(w, r)
		ours := 200
		if ask(t, g, r, guard.API) != "" {
			ours = 403
		}
		if w.Code != tt.theirs || ours != tt.ours {
			t.Errorf("%s at host %s: original %d, here %d, want %d, %d", tt.line, tt.host, w.Code, ours, tt.theirs, tt.ours)
		}
	}
}

func FuzzAgainstOriginal(f *testing.F) {
	for _, p := range execPaths[:8] {
		f.Add(uint8(0), "POST", p, "localhost")
	}
	for _, h := range hosts {
		f.Add(uint8(0), "GET", "/api/v1/pods", h)
	}
	flags := configs()
	f.Add(uint8(1), "PUT", "/api/v1/secrets", "evil")
	f.Fuzz(func(t *testing.T, config uint8, method, path, host string) {
		compare(t, flags[int(config)%len(flags)], method, path, host)
	})
}

func FuzzLists(f *testing.F) {
	f.Add(guard.DefaultAcceptHosts, "127.0.0.1", "[::1]")
	f.Add(guard.DefaultRejectPaths, "/api/v1/pods/a/exec", "/api/x/pods/attach")
	f.Add("^.*", "", "\n")
	f.Add("(?i)a$,^b(c|d)?$,,x{2,3}", "A", "b")
	f.Add(`^[^/]*\.local$,(?s).,\b`, "a.local", "\xff")
	f.Fuzz(func(t *testing.T, text, method, other string) {
		theirs, err := proxy.MakeRegexpArray(text)
		g, ourErr := guard.New(guard.Config{AcceptPaths: ".*", AcceptHosts: ".*", RejectMethods: text})
		if (err == nil) != (ourErr == nil) {
			t.Fatalf("list %q: error %v, the original's %v", text, ourErr, err)
		}
		if err != nil {
			return
		}
		for _, m := range []string{method, other} {
			want := false
			for _, re := range theirs {
				want = want || re.MatchString(m)
			}
			r := &http.Request{Method: m, URL: &url.URL{Path: "/"}, Host: "localhost"}
			if got := ask(t, g, r, guard.API) == "reject-methods"; got != want && m != http.MethodConnect {
				t.Errorf("list %q, method %q: rejected %v, by the original %v", text, m, got, want)
			}
		}
	})
}
