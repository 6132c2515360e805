package kubectlproxy_test

import (
	"strings"
	"testing"
)

func withAPIPrefix(prefix string) func(*stage) {
	return func(s *stage) { s.config.APIPrefix = prefix }
}

const notFound = "404 404 page not found"

func testAPIPrefix(t *testing.T) {
	s := newStage(t, withAPIPrefix("/custom/"))
	s.expect(get("/custom/api/v1/pods"), passed, passed)
	s.expect(get("/custom/api/v1/pods?limit=1"), passed+"?limit=1", passed+"?limit=1")
	s.expect(get("/custom"), "307 to /custom/", "307 to /custom/")
	s.expect(get("/custom/"), "200 GET /", "200 GET /")
	s.expect(get("/api/v1/pods"), notFound, "404 Status NotFound")
	s = newStage(t, withAPIPrefix("/k8s-api"))
	s.expect(get("/k8s-api/api/v1/pods"), passed, passed)
	s = newStage(t, withAPIPrefix("k8s-api"))
	s.expect(get("/k8s-api/api/v1/pods"), notFound, passed) // there it is the name of a host
}

func testAPIPrefixKept(t *testing.T) {
	s := newStage(t, withAPIPrefix("/api/"))
	s.expect(get("/api/v1/pods"), passed, passed)
	s.expect(get("/version"), notFound, "404 Status NotFound")
	s = newStage(t, withAPIPrefix("/apifoo"))
	s.expect(get("/apifoo/version"), "200 GET /apifoo/version", "200 GET /apifoo/version")
}

func testEscapes(t *testing.T) {
	const escaped = "/api/v1/namespaces/d/services/s/proxy/a%2Fb%20c"
	s := newStage(t)
	s.expect(get(escaped), "200 GET "+escaped, "200 GET "+escaped)
	s = newStage(t, withAPIPrefix("/custom/"))
	s.expect(get("/custom"+escaped), "200 GET /api/v1/namespaces/d/services/s/proxy/a/b%20c", "200 GET "+escaped)
}

func testTargets(t *testing.T) {
	s := newStage(t)
	for _, target := range []string{
		"/", "/api", "/api/", "/api/v1/pods?", "/api/v1/pods?a=1;b=2&c=%zz&d", "/api/v1/pods?labelSelector=a%3Db%2Cc&x=a+b",
		"/api/v1/x;a=1/y", "/api/v1/x%3Fy%23z%25", `/api/v1/é/[a]/{b}/|^"<>`,
	} {
		want := s.original.send(t, get(target)).String()
		if !strings.HasPrefix(want, "200 GET /") {
			t.Errorf("kubectl proxy answers %q to %s: has it changed?", want, target)
		}
		s.expect(get(target), want, want)
	}
	s.expect(get("http://localhost/api/v1/pods", "Host: rebound.example"), passed, passed) // RFC 9112, 3.2.2: the URL counts
	s.expect(get("http://rebound.example/api/v1/pods"), theirsNo, oursNo)
	s.expect(get("x:https://localhost/api/v1/namespaces/d/pods/p/exec"), "307 to /", oursNo)
	s.expect("GET /api/v1/pods HTTP/1.0\r\nHost: localhost\r\n\r\n", passed, passed)
}

func testUncleanPaths(t *testing.T) {
	s := newStage(t)
	for path, clean := range map[string]string{
		"/api//v1/pods": "/api/v1/pods", "/api/v1/nodes/../pods": "/api/v1/pods", "/api/./v1/pods": "/api/v1/pods",
		"/api/v1/namespaces/d/services/s/proxy//x/": "/api/v1/namespaces/d/services/s/proxy/x/",
	} {
		s.expect(get(path), "307 to "+clean, "200 GET "+path)
		s.expect(post(path), "307 to "+clean, "200 POST "+path)
	}
}

func testEvasion(t *testing.T) {
	s := newStage(t, func(s *stage) { s.config.Guard.RejectPaths += ",^/api/v1/secrets" })
	for _, path := range []string{
		"/api/v1/namespaces/d/pods/p/exec", "//api/v1/namespaces/d/pods/p/exec", "/x/../api/v1/namespaces/d/pods/p/exec",
		"/api/v1/namespaces/d/pods/p%2Fexec", "/api/v1/namespaces/d/pods/p/%65xec", "/api/v1/namespaces/d/pods/p/./exec",
		"/api//v1/secrets", "/api/v1/%73ecrets", "/api/v1/x/%2e%2e/secrets", "/api%2Fv1%2Fsecrets", "/./api/v1/secrets",
	} {
		for _, raw := range []string{get(path), post(path)} {
			if got := s.ours.send(t, raw).String(); got != oursNo {
				t.Errorf("%q to %q, want it refused", got, raw)
			}
		}
	}
	s.api.untouched(t)
	// A client that follows the redirect is refused in the second step there.
	s.expect(get("//api/v1/secrets"), "307 to /api/v1/secrets", oursNo)
	s.expect(get("/api/v1/secrets"), theirsNo, oursNo)
}

func testRedirects(t *testing.T) {
	s := newStage(t)
	s.api.answers(redirects)
	for _, to := range []string{"/elsewhere", "https://other.example/x", s.api.URL + "/y"} {
		raw := get("/api/v1/go?to=" + to)
		s.expect(raw, "302 to "+to, "302 to "+to)
	}
}

func testServerPath(t *testing.T) {
	withPath := func(s *stage) { s.file.Clusters["main"].Server += "/k8s/clusters/c-1/" }
	s := newStage(t, withPath)
	s.expect(get("/api/v1/pods"), passed, "200 GET /k8s/clusters/c-1/api/v1/pods")
	s.expect(get("/api/v1/a%2Fb"), "200 GET /api/v1/a%2Fb", "200 GET /k8s/clusters/c-1/api/v1/a%2Fb")
	s = newStage(t, withPath, func(s *stage) { s.append = true })
	s.expect(get("/api/v1/pods"), "200 GET /k8s/clusters/c-1/api/v1/pods", "200 GET /k8s/clusters/c-1/api/v1/pods")
	s = newStage(t, withPath, func(s *stage) { s.config.Clusters.ServerPath = false })
	s.expect(get("/api/v1/pods"), passed, passed)
	p := startProcess(t, s.path, "--port=0")
	p.says(t, "use --append-server-path")
}
