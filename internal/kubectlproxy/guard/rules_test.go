package guard_test

import (
	"strings"
	"testing"

	"varco.dev/internal/kubectlproxy/guard"
)

func denies(rules ...string) guard.Config {
	return with(func(c *guard.Config) { c.Deny = rules })
}

// secretPaths get at secrets in some server.
var secretPaths = []string{
	"/api/v1/secrets",
	"/api/v1/secrets/",
	"/api/v1/secrets?watch=true",
	"/api/v1/secrets?fieldSelector=metadata.name%3Da",
	"/api/v1/namespaces/default/secrets",
	"/api/v1/namespaces/default/secrets/a",
	"/api/v1/namespaces/default/secrets/a/status",
	"/api/v1/watch/secrets",
	"/api/v1/watch/namespaces/default/secrets/a",
	"/api/v1/proxy/namespaces/default/secrets/a",
	"/api/v2/secrets",
	"/api/v2/namespaces/default/secrets",
	"/apis/example.com/v1/secrets",
	"/apis/example.com/v1/namespaces/default/secrets",
	"/api2/v1/secrets",
	"/k8s/clusters/one/api/v1/secrets",
	"/k8s/clusters/one/api/v1/Secrets",
	"//api/v1/secrets",
	"/api//v1/secrets",
	"/api/v1//secrets",
	"/api/v1/./secrets",
	"/api/v1/pods/../secrets",
	"/api/v1/namespaces/default/services/web/proxy/../../../secrets",
	"/api/v1/namespaces/default/services/web/proxy/..%2f..%2f..%2fsecrets",
	"/api/v1/%73ecrets",
	"/api/v1/%2573ecrets",
	"/api/v1%2Fsecrets",
	"/api%2fv1%252fsecrets",
	"/api/v1/SECRETS",
	"/api/v1/pods/%2e%2e/secrets",
	"/api/v1/pods/%252e%252e/secrets",
	"/api/v1\\secrets",
	"/api/v1/secrets%00.txt",
	"/api/v1/secrets%3Fx",
	"/api/v1/secrets%23",
	"/api/v1/secrets;x=y",
	"/api/v1%c0%afsecrets",
	"/../api/v1/secrets",
	"/../../other/secret",
	"/api/v1/watch",
	"/%25252525252525252561pi",
}

func TestDenySecrets(t *testing.T) {
	g := mustNew(t, denies("pods/log", "secrets"))
	off := mustNew(t, with(func(c *guard.Config) { c.Deny, c.Disabled = []string{"secrets"}, true }))
	for _, p := range secretPaths {
		for _, method := range []string{"GET ", "HEAD ", "POST ", "PUT ", "PATCH ", "DELETE ", "OPTIONS ", "LOOK "} {
			if got := ask(t, g, request(method+p), guard.API); got != "deny" {
				t.Errorf("%s%s: refused by %q, want deny", method, p, got)
			}
		}
		if got := ask(t, off, request(p, upgrade()...), guard.API); got != "deny" {
			t.Errorf("upgrade of %s without filter: refused by %q, want deny", p, got)
		}
	}
}

func TestDenyLeavesOthers(t *testing.T) {
	g := mustNew(t, denies("secrets", "deployments.apps", "pods/exec", "*.rbac.authorization.k8s.io"))
	for _, p := range []string{
		"/", "/api", "/apis", "/api/v1", "/apis/apps/v1", "/version", "/healthz?verbose", "/openapi/v3/apis/rbac.authorization.k8s.io/v1",
		"/openapi/v2", "/apis/rbac.authorization.k8s.io", "/apis/rbac.authorization.k8s.io/v1", "/api/v1/pods", "/api/v1/namespaces/secrets/pods",
		"/api/v1/namespaces/secrets", "/api/v1/namespaces/default/configmaps/secrets", "/api/v1/namespaces/default/pods/secrets/log",
		"/api/v1/namespaces/default/services/web/proxy/secrets", "/api/v1/namespaces/default/services/web/proxy/a%2Fb//c%3Fd%252F;e",
		"/api/v1/namespaces/default/services/web/proxy/%E2%82%AC/", "/apis/example.com/v1/deployments", "/apis/apps/v1/replicasets",
		"/api/v1/namespaces/default/configmaps/a:b", "/api/v1/namespaces/default/services/https:web:443/proxy/",
	} {
		if got := ask(t, g, request(p), guard.API); got != "" {
			t.Errorf("%s: refused by %q", p, got)
		}
	}
}

func TestRules(t *testing.T) {
	tests := []struct {
		rule    string
		denied  string // paths
		allowed string
	}{
		{"Secrets", "/api/v1/secrets", "/api/v1/pods"},
		{"deployments.apps", "/apis/apps/v1/deployments /apis/apps/v1beta1/namespaces/a/deployments/b/scale /x/deployments", "/apis/extensions/v1/deployments /api/v1/deployments"},
		{"deployments", "/apis/apps/v1/deployments /apis/extensions/v1/deployments", "/apis/apps/v1/daemonsets"},
		{"pods/exec", "/api/v1/namespaces/a/pods/b/exec /api/v1/namespaces/a/pods/b/exec/c /x/pods/y/exec", "/api/v1/namespaces/a/pods/b /api/v1/namespaces/a/pods/exec /x/exec/pods"},
		{"pods/log", "/api/v1/nodes/a/proxy/containerLogs/b/c/d /api/v1/proxy/nodes/a:10250/pods", "/api/v1/nodes/a /api/v1/nodes /api/v1/namespaces/a/services/b/proxy/"},
		{"pods.metrics.k8s.io", "/apis/metrics.k8s.io/v1beta1/pods", "/api/v1/pods /api/v1/nodes/a/proxy/pods"},
		{"pods/*", "/api/v1/namespaces/a/pods/b/log", "/api/v1/namespaces/a/pods/b /api/v1/pods"},
		{"*/scale", "/apis/apps/v1/namespaces/a/deployments/b/scale /x/scale", "/apis/apps/v1/namespaces/a/deployments/scale"},
		{"*.rbac.authorization.k8s.io", "/apis/rbac.authorization.k8s.io/v1/clusterroles /x/rbac.authorization.k8s.io/y", "/api/v1/pods /x/clusterroles"},
		{"*.rbac.authorization.k8s.io/status", "/apis/rbac.authorization.k8s.io/v1/clusterroles/a/status", "/apis/rbac.authorization.k8s.io/v1/clusterroles/a"},
		{"*", "/api/v1/pods /apis/apps/v1/deployments /x/y", "/version /apis"},
		{"nodes/proxy", "/api/v1/nodes/a/proxy/metrics /api/v1/proxy/nodes/a/metrics", "/api/v1/nodes/a"},
		{"namespaces", "/api/v1/namespaces /api/v1/namespaces/a /api/v1/namespaces/a/status", "/api/v1/namespaces/a/pods"},
	}
	for _, tt := range tests {
		g := mustNew(t, with(func(c *guard.Config) { c.Deny, c.AllowAll, c.RejectPaths = []string{tt.rule}, true, "" }))
		for _, p := range strings.Fields(tt.denied) {
			if got := ask(t, g, request(p), guard.API); got != "deny" {
				t.Errorf("--deny %s: %s refused by %q, want deny", tt.rule, p, got)
			}
		}
		for _, p := range strings.Fields(tt.allowed) {
			if got := ask(t, g, request(p), guard.API); got != "" {
				t.Errorf("--deny %s: %s refused by %q", tt.rule, p, got)
			}
		}
	}
}

// TestDenyService gives the path that a request to a Service's origin becomes.
func TestDenyService(t *testing.T) {
	g := mustNew(t, denies("services/proxy"))
	r := request("/")
	if err := g.Check(r, guard.Service, "/api/v1/namespaces/default/services/web/proxy/"); err == nil {
		t.Error("denied path of a Service is not refused")
	}
	if err := g.Check(r, guard.Service, "/api/v1/namespaces/default/pods/web/log"); err != nil {
		t.Errorf("other path of a Service: %v", err)
	}
	if err := g.Check(r, guard.Service, ""); err != nil {
		t.Errorf("unknown path of a Service: %v", err)
	}
}
