package guard_test

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/kubectlproxy/guard"
)

func TestNewNamesTheFlag(t *testing.T) {
	tests := []struct {
		want   string
		change func(*guard.Config)
	}{
		{`flag --accept-hosts: reading "("`, func(c *guard.Config) { c.AcceptHosts = "a,(" }},
		{`flag --accept-paths: reading "*"`, func(c *guard.Config) { c.AcceptPaths = "*" }},
		{`flag --reject-paths: `, func(c *guard.Config) { c.RejectPaths = "[" }},
		{`flag --reject-methods: `, func(c *guard.Config) { c.RejectMethods = "(?<" }},
		{`flag --accept-origins: `, func(c *guard.Config) { c.AcceptOrigins = ")" }},
		{`flag --allow: unknown class "shell": the classes are exec, attach and portforward`, func(c *guard.Config) { c.Allow = []string{"exec", "shell"} }},
		{`flag --allow: unknown class ""`, func(c *guard.Config) { c.Allow = []string{""} }},
		{`flag --allow: unknown class "Exec"`, func(c *guard.Config) { c.Allow = []string{"Exec"} }},
		{`flag --deny: "secret" is not how paths name it: write secrets`, func(c *guard.Config) { c.Deny = []string{"pods", "secret"} }},
		{`flag --deny: "po/exec" is not how paths name it: write pods`, func(c *guard.Config) { c.Deny = []string{"po/exec"} }},
		{`flag --deny: "" is no resource`, func(c *guard.Config) { c.Deny = []string{""} }},
		{`flag --deny: "pods/" is no resource`, func(c *guard.Config) { c.Deny = []string{"pods/"} }},
		{`flag --deny: "pods/exec/x" is no resource`, func(c *guard.Config) { c.Deny = []string{"pods/exec/x"} }},
		{`flag --deny: "pods." is no resource`, func(c *guard.Config) { c.Deny = []string{"pods."} }},
		{`flag --deny: "sec*" is no resource`, func(c *guard.Config) { c.Deny = []string{"sec*"} }},
		{`flag --deny: "deployments.v1.apps" has a version`, func(c *guard.Config) { c.Deny = []string{"deployments.v1.apps"} }},
		{`flag --deny: "pods.v1" has a version`, func(c *guard.Config) { c.Deny = []string{"pods.v1"} }},
		{`flag --require-token: `, func(c *guard.Config) { c.Token = "a b" }},
	}
	for _, tt := range tests {
		_, err := guard.New(with(tt.change))
		if err == nil || !strings.HasPrefix(err.Error(), tt.want) {
			t.Errorf("error %v, want %s…", err, tt.want)
		}
	}
}

func TestListsOfUser(t *testing.T) {
	tests := []struct {
		change func(*guard.Config)
		line   string
		want   string
	}{
		{func(c *guard.Config) { c.RejectMethods = "POST,PUT,PATCH" }, "POST /api", "reject-methods"},
		{func(c *guard.Config) { c.RejectMethods = "POST,PUT,PATCH" }, "GET /api", ""},
		{func(c *guard.Config) { c.RejectMethods = "" }, "POST /api", ""},
		{func(c *guard.Config) { c.AcceptPaths = "" }, "GET /api", "accept-paths"},
		{func(c *guard.Config) { c.AcceptPaths = "^/api/v1/namespaces/a/" }, "GET /api/v1/namespaces/a/pods", ""},
		{func(c *guard.Config) { c.AcceptPaths = "^/api/v1/namespaces/a/" }, "GET /api/v1/namespaces/a/../b/pods", "accept-paths"},
		{func(c *guard.Config) { c.AcceptPaths = "^/api/v1/namespaces/a/" }, "GET /api/v1/namespaces/a/%2e%2e/b/pods", "accept-paths"},
		{func(c *guard.Config) { c.AcceptPaths = "^/api/v1/namespaces/a/" }, "GET /api/v1/namespaces/a/x%2F..%252F../b/pods", "accept-paths"},
		{func(c *guard.Config) { c.AcceptPaths = "^/api/v1/namespaces/a/" }, "GET //api/v1/namespaces/a/pods", "accept-paths"},
		{func(c *guard.Config) { c.AcceptPaths = "pods" }, "GET /api/v1/pods", ""},
		{func(c *guard.Config) { c.RejectPaths = "b{1,2}c" }, "GET /api/b%7B1", "reject-paths"}, // split inside the braces
		{func(c *guard.Config) { c.RejectPaths = "^/$" }, "GET /", "reject-paths"},
		{func(c *guard.Config) { c.RejectPaths = "^/$" }, "GET /x/..", "reject-paths"},
		{func(c *guard.Config) { c.RejectPaths = "^/api/v1/secrets" }, "GET /../../server/path/api/v1/secrets", "reject-paths"}, // the kubeconfig's server has a path
		{func(c *guard.Config) { c.RejectPaths = "^/api/v1/secrets" }, "GET /a/..%2f..%252f/path/api/v1/secrets", "reject-paths"},
		{func(c *guard.Config) { c.RejectPaths = "" }, "GET /../x", ""},
		{func(c *guard.Config) { c.RejectPaths = "^/$"; c.Disabled = true }, "GET /", ""},
	}
	for i, tt := range tests {
		if got := ask(t, mustNew(t, with(tt.change)), request(tt.line), guard.API); got != tt.want {
			t.Errorf("%d: %s refused by %q, want %q", i, tt.line, got, tt.want)
		}
	}
}

// TestFilesAreUnderTheLists is where the original serves files whatever its lists say.
func TestFilesAreUnderTheLists(t *testing.T) {
	for _, c := range []struct {
		accept, reject, path string
		place                guard.Place
		want                 string
	}{
		{guard.DefaultAcceptPaths, guard.DefaultRejectPaths, "/static/x", guard.Static, ""},
		{guard.DefaultAcceptPaths, "^/static/secret", "/static/x", guard.Static, ""},
		{guard.DefaultAcceptPaths, "^/static/secret", "/static/secret.txt", guard.Static, "reject-paths"},
		{guard.DefaultAcceptPaths, "^/static/secret", "/static/x/../secret.txt", guard.Static, "reject-paths"},
		{"^/api/", "", "/static/x", guard.Static, "accept-paths"},
		{"^/api/", "^/", "/", guard.Page, ""},
	} {
		g := mustNew(t, with(func(g *guard.Config) {
			g.AcceptPaths, g.RejectPaths, g.Deny, g.ReadOnly = c.accept, c.reject, []string{"static"}, true
		}))
		if got := ask(t, g, request(c.path), c.place); got != c.want {
			t.Errorf("%+v: refused by %q", c, got)
		}
	}
}

// TestTargetWithoutPath asks in a way that package url reads as no path at all, though the API server would get one.
func TestTargetWithoutPath(t *testing.T) {
	open := mustNew(t, guard.Config{Disabled: true})
	for _, target := range []string{"x:https://kubernetes/api/v1/secrets", "http:api/v1/secrets"} {
		for _, place := range []guard.Place{guard.API, guard.Static, guard.Page, guard.Service} {
			if got := ask(t, open, request("GET "+target), place); got != "target" {
				t.Errorf("%s in place %d: refused by %q, want target", target, place, got)
			}
		}
	}
}

func TestLongPaths(t *testing.T) {
	g := mustNew(t, defaults())
	long := strings.Repeat("/a", 20_000)
	if got := ask(t, g, request(long), guard.API); got != "" {
		t.Errorf("long path: refused by %q", got)
	}
	if got := ask(t, g, request(long+"/.."), guard.API); got != "reject-paths" {
		t.Errorf("long path to clean: refused by %q, want reject-paths", got)
	}
	strict := mustNew(t, with(func(c *guard.Config) { c.Disabled, c.ReadOnly = true, true }))
	if got := ask(t, strict, request(long+"/.."), guard.API); got != "read-only" {
		t.Errorf("long path to clean with --read-only: refused by %q", got)
	}
}

func TestStatus(t *testing.T) {
	g := mustNew(t, with(func(c *guard.Config) { c.RejectPaths = "" }))
	r := request("POST /api/v1/namespaces/a/pods/b/exec")
	var refusal *guard.Refusal
	if err := g.Check(r, guard.API, r.URL.EscapedPath()); !errors.As(err, &refusal) {
		t.Fatalf("error %v, want a refusal", err)
	}
	s := refusal.Status().Status()
	if s.Code != http.StatusForbidden || s.Reason != metav1.StatusReasonForbidden || s.Message != "exec of pods is off by default: start with --allow exec" {
		t.Errorf("status %+v", s)
	}
	if fmt.Sprint(refusal) != s.Message {
		t.Errorf("error says %q, status %q", refusal, s.Message)
	}
}

func BenchmarkCheck(b *testing.B) {
	benchmarks := []struct {
		name   string
		target string
		config guard.Config
	}{
		{"defaults", "/api/v1/namespaces/default/pods?limit=500", defaults()},
		{"apps", "/apis/apps/v1/namespaces/kube-system/deployments/coredns", defaults()},
		{"read-only and deny", "/api/v1/namespaces/default/pods?limit=500", with(func(c *guard.Config) { c.ReadOnly, c.Deny = true, []string{"secrets"} })},
		{"escaped", "/api/v1/namespaces/default/services/web/proxy/a%2Fb", defaults()},
	}
	for _, bm := range benchmarks {
		b.Run(bm.name, func(b *testing.B) {
			g := mustNew(b, bm.config)
			r := request(bm.target)
			path := r.URL.EscapedPath()
			b.ReportAllocs()
			for b.Loop() {
				if err := g.Check(r, guard.API, path); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}
