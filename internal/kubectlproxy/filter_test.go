package kubectlproxy_test

import (
	"strings"
	"testing"

	"varco.dev/internal/kubectlproxy/guard"
)

const (
	passed   = "200 GET /api/v1/pods"
	theirsNo = "403 Forbidden"
	oursNo   = "403 Status Forbidden"
)

func testHosts(t *testing.T) {
	s := newStage(t)
	for _, c := range []struct{ host, original, ours string }{
		{"localhost", passed, passed},
		{"localhost:8001", passed, passed},
		{"127.0.0.1", passed, passed},
		{"127.0.0.1:8001", passed, passed},
		{"[::1]", passed, passed},
		{"[::1]:8001", theirsNo, passed}, // a client on IPv6 sends this
		{"localhost.", theirsNo, passed},
		{"localhost.:8001", theirsNo, passed},
		{"LocalHost:8001", theirsNo, passed},
		{"rebound.example", theirsNo, oursNo},
		{"rebound.example:8001", theirsNo, oursNo},
		{"localhost.rebound.example", theirsNo, oursNo},
		{"127.0.0.1.rebound.example", theirsNo, oursNo},
		{"[::2]:8001", theirsNo, oursNo},
		{"192.0.2.1:8001", theirsNo, oursNo},
		{"", theirsNo, oursNo},
	} {
		s.expect(get("/api/v1/pods", "Host: "+c.host), c.original, c.ours)
	}
	s = newStage(t, func(s *stage) { s.config.Guard.AcceptHosts = `^proxy\.example$` })
	s.expect(get("/api/v1/pods", "Host: proxy.example:80"), passed, passed)
	s.expect(get("/api/v1/pods"), theirsNo, oursNo)
}

func testFilterLists(t *testing.T) {
	const exec = "/api/v1/namespaces/d/pods/p/exec"
	for _, c := range []struct {
		name   string
		change func(*guard.Config)
		raw    string
		want   int
	}{
		{"accepted path", func(g *guard.Config) { g.AcceptPaths = "^/api" }, get("/api/v1"), 200},
		{"path that is not accepted", func(g *guard.Config) { g.AcceptPaths = "^/api" }, get("/version"), 403},
		{"anywhere in the path", func(g *guard.Config) { g.AcceptPaths = "pods" }, get("/api/v1/pods"), 200},
		{"one of two", func(g *guard.Config) { g.AcceptPaths = "^/version$,^/healthz$" }, get("/healthz"), 200},
		{"reject wins", func(g *guard.Config) { g.AcceptPaths, g.RejectPaths = "^/api", "^/api/v1/secrets" }, get("/api/v1/secrets"), 403},
		{"reject leaves others", func(g *guard.Config) { g.AcceptPaths, g.RejectPaths = "^/api", "^/api/v1/secrets" }, get("/api/v1/pods"), 200},
		{"the query is no part of the path", func(g *guard.Config) { g.RejectPaths = "watch" }, get("/api/v1/pods?watch=0"), 200},
		{"a rejected method", func(g *guard.Config) { g.RejectMethods = "^POST$,^PUT$" }, request("PUT", "/api/v1", "{}"), 403},
		{"another method", func(g *guard.Config) { g.RejectMethods = "^POST$,^PUT$" }, get("/api/v1"), 200},
		{"part of a method", func(g *guard.Config) { g.RejectMethods = "P" }, request("PATCH", "/api/v1", "{}"), 403},
		{"methods are case sensitive", func(g *guard.Config) { g.RejectMethods = "post" }, post("/api/v1"), 200},
		{"nothing accepted", func(g *guard.Config) { g.AcceptPaths = "" }, get("/api/v1"), 403},
		{"no host accepted", func(g *guard.Config) { g.AcceptHosts = "" }, get("/api/v1"), 403},
		{"no method rejected", func(g *guard.Config) { g.RejectMethods = "" }, post("/api/v1"), 200},
		{"split inside braces", func(g *guard.Config) { g.RejectPaths = "^/a{1,2}$" }, get("/aa"), 200},
		{"split inside braces, second part", func(g *guard.Config) { g.RejectPaths = "^/b,2}$" }, get("/x2%7D"), 403},
		{"no path rejected", func(g *guard.Config) { g.RejectPaths, g.AllowAll = "", true }, post(exec), 200}, // as internal/cli sets it
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, func(s *stage) { c.change(&s.config.Guard) })
			original, ours := s.original.send(t, c.raw), s.ours.send(t, c.raw)
			if original.Code != c.want || ours.Code != c.want {
				t.Errorf("%s: kubectl proxy answers %v, ours %v, want %d", c.raw, original, ours, c.want)
			}
		})
	}
}

func testBadExpression(t *testing.T) {
	s := prepare(t)
	p := startProcess(t, s.path, "--port=0", "--accept-paths=(")
	if said := p.said.String(); p.first != "" || !strings.Contains(said, "Error compiling re") || strings.Contains(said, "accept-paths") {
		t.Errorf("kubectl proxy says %q: has it changed?", said)
	}
	s.config.Guard.AcceptPaths = "("
	if err := s.runs(); err == nil || !strings.Contains(err.Error(), "--accept-paths") {
		t.Errorf("error %v, want one that names the flag", err)
	}
}

func testRefusals(t *testing.T) {
	s := newStage(t)
	raw := get("/api/v1/pods", "Host: rebound.example")
	s.expect(raw, theirsNo, oursNo)
	original, ours := s.original.send(t, raw), s.ours.send(t, raw)
	if got := original.Header.Get("Content-Type"); got != "text/plain; charset=utf-8" {
		t.Errorf("kubectl proxy refuses with %q: has it changed?", got)
	}
	if got := ours.status(); got.Code != 403 || !strings.Contains(got.Message, "--accept-hosts") {
		t.Errorf("status %+v, want one that names the flag", got)
	}
	s.api.untouched(t)
}

func testClasses(t *testing.T) {
	const pod, node = "/api/v1/namespaces/d/pods/p/", "/api/v1/nodes/n/proxy/"
	s := newStage(t)
	for _, c := range []struct{ path, class string }{
		{pod + "exec?command=id", "exec"}, {pod + "attach", "attach"},
	} {
		s.expect(post(c.path), theirsNo, oursNo)
		if got := s.ours.send(t, post(c.path)).status().Message; !strings.Contains(got, "--allow "+c.class) {
			t.Errorf("%s is refused with %q, want the flag that allows it", c.path, got)
		}
	}
	// These are as good as exec, and pass there.
	for _, path := range []string{pod + "portforward", node + "run/d/p/c", node + "exec/d/p/c"} {
		s.expect(post(path), "200 POST "+path, oursNo)
	}
	s.expect(get(node+"stats/summary"), "200 GET "+node+"stats/summary", "200 GET "+node+"stats/summary")
	s = newStage(t, func(s *stage) { s.config.Guard.Allow = []string{"exec", "portforward"} })
	for _, path := range []string{pod + "portforward", node + "run/d/p/c"} {
		s.expect(post(path), "200 POST "+path, "200 POST "+path)
	}
	s.expect(post(pod+"exec"), theirsNo, "200 POST "+pod+"exec")
	s.expect(post(pod+"attach"), theirsNo, oursNo)
}

func testDisabled(t *testing.T) {
	s := newStage(t, func(s *stage) { s.config.Guard.Disabled = true })
	s.expect(get("/api/v1/pods", "Host: rebound.example"), passed, passed)
	s.expect(post("/api/v1/namespaces/d/pods/p/exec", "Sec-Fetch-Site: cross-site"),
		"200 POST /api/v1/namespaces/d/pods/p/exec", "200 POST /api/v1/namespaces/d/pods/p/exec")
	if got := s.log.String(); !strings.Contains(got, "level=WARN") || !strings.Contains(got, "not filtered") {
		t.Errorf("our log has no warning: %s", got)
	}
	s = newStage(t, func(s *stage) { s.config.Guard.Disabled, s.config.Guard.ReadOnly = true, true })
	s.expect(post("/api/v1/pods"), "200 POST /api/v1/pods", oursNo)
}

func testPages(t *testing.T) {
	s := newStage(t)
	const write = "200 POST /api/v1/pods"
	for _, c := range []struct{ raw, original, ours string }{
		{post("/api/v1/pods", "Origin: https://hostile.example"), write, oursNo},
		{post("/api/v1/pods", "Sec-Fetch-Site: cross-site"), write, oursNo},
		{post("/api/v1/pods", "Sec-Fetch-Site: same-site", "Origin: http://80.app.default.svc.localhost"), write, oursNo},
		{post("/api/v1/pods", "Sec-Fetch-Site: same-origin", "Origin: http://localhost"), write, write},
		{post("/api/v1/pods"), write, write},
		{get("/api/v1/pods", "Sec-Fetch-Site: cross-site"), passed, passed}, // its page cannot read the answer
	} {
		s.expect(c.raw, c.original, c.ours)
	}
	s = newStage(t, func(s *stage) { s.config.Guard.AcceptOrigins = `^https://good\.example$` })
	s.expect(post("/api/v1/pods", "Origin: https://good.example", "Sec-Fetch-Site: cross-site"), write, write)
}

func testPageSockets(t *testing.T) {
	s := newStage(t)
	s.api.answers(echoes)
	for _, c := range []struct {
		origin         string
		original, ours int
	}{
		{"https://hostile.example", 101, 403},
		{"http://80.app.default.svc.localhost", 101, 403},
		{"http://localhost", 101, 101},
	} {
		raw := upgrade("/api/v1/namespaces/d/pods?watch=1", "websocket", "Origin: "+c.origin)
		if got := s.original.open(t, raw).header(t).StatusCode; got != c.original {
			t.Errorf("kubectl proxy answers %d to a WebSocket of %s, want %d: has it changed?", got, c.origin, c.original)
		}
		if got := s.ours.open(t, raw).header(t).StatusCode; got != c.ours {
			t.Errorf("got %d to a WebSocket of %s, want %d", got, c.origin, c.ours)
		}
	}
}

func testReadOnly(t *testing.T) {
	s := newStage(t, func(s *stage) { s.config.Guard.ReadOnly, s.config.Guard.Deny = true, []string{"secrets"} })
	s.expect(get("/api/v1/pods"), passed, passed)
	s.expect(post("/api/v1/pods"), "200 POST /api/v1/pods", oursNo)
	s.expect(get("/api/v1/secrets"), "200 GET /api/v1/secrets", oursNo)
	s.expect(get("//api/v1//secrets"), "307 to /api/v1/secrets", oursNo)
}
