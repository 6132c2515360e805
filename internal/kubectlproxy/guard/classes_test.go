package guard_test

import (
	"strings"
	"testing"

	"varco.dev/internal/kubectlproxy/guard"
)

// execPaths end up at exec in some server, be it only behind a load balancer that cleans or decodes.
var execPaths = []string{
	"/api/v1/namespaces/default/pods/web/exec",
	"/api/v1/namespaces/default/pods/web/exec?command=sh&stdin=true",
	"/api/v1/namespaces/default/pods/web/exec/",
	"/api/v1/namespaces/default/pods/web/exec/more",
	"/api/v1/namespaces/default/pods/web//exec",
	"/api/v1/namespaces/default//pods//web//exec//",
	"//api/v1/namespaces/default/pods/web/exec",
	"/api/v1/namespaces/default/pods/web/./exec",
	"/api/v1/namespaces/default/pods/web/log/../exec",
	"/x/../api/v1/namespaces/default/pods/web/exec",
	"/api/v1/namespaces/default/pods/web/%65xec",
	"/api/v1/namespaces/default/pods/web/%2565xec",
	"/api/v1/namespaces/default/pods/web/%252565xec",
	"/api/v1/namespaces/default/pods%2Fweb%2Fexec",
	"/api/v1/namespaces/default/pods%2fweb%252fexec",
	"/api/v1/namespaces/default/pods/web/log/%2e%2e/exec",
	"/api/v1/namespaces/default/pods/web/log/%252e%252e/exec",
	"/api/v1/namespaces/default/pods/web/log/.%2E/exec",
	"/api/v1/namespaces/default/pods/web%5Cexec",
	"/api/v1/namespaces/default/pods/web/exec%00",
	"/api/v1/namespaces/default/pods/web/exec%3Fx",
	"/api/v1/namespaces/default/pods/web/exec%23x",
	"/API/v1/namespaces/default/Pods/web/EXEC",
	"/api/v1/pods/web/exec",
	"/api/v1/namespaces/default/pods/exec/exec",
	"/k8s/clusters/one/api/v1/namespaces/default/pods/web/exec",
	"/api/v1/namespaces/default/pods/web/eph/..%2Fexec",
	// The kubelet's own paths.
	"/api/v1/nodes/one/proxy/exec/default/web/c",
	"/api/v1/nodes/one:10250/proxy/exec/default/web/c",
	"/api/v1/nodes/https:one:10250/proxy/exec/default/web/c",
	"/api/v1/nodes/https:one:10250/proxy//exec/default/web/c",
	"/api/v1/nodes/one/proxy/run/default/web/c",
	"/api/v1/nodes/one/proxy/RUN/default/web/c",
	"/api/v1/nodes/one/proxy/attach/default/web/c",
	"/api/v1/nodes/one/proxy/portForward/default/web",
	"/api/v1/nodes/one/proxy/cri/exec/token",
	"/api/v1/nodes/one/proxy/x/..%2Fexec/default/web/c",
	"/api/v1/nodes/one/proxy/x/../exec/default/web/c",
	"/api/v1/nodes/one/proxy/../exec/default/web/c", // the API server cleans what follows proxy, below the kubelet's root
	"/api/v1/nodes/one/proxy/..%2f..%2frun/default/web/c",
	"/api/v1/nodes/one/proxy/%2e%2e/x/%2e%2e/%72un/default/web/c",
	"/api/v1/nodes/one/proxy/.//run/default/web/c",
	"/api/v1/nodes//one/proxy/../run/default/web/c", // for servers that merge slashes and leave dots
	"/api/v1/proxy/nodes/one/exec/default/web/c",
	"/api/v1/proxy/nodes/one:10250/run/default/web/c",
	"/api/v1/nodes%2Fone%2Fproxy%2Frun/default/web/c",
	"/apis/../api/v1/nodes/one/proxy/run/default/web/c",
}

func TestExecIsOff(t *testing.T) {
	g := mustNew(t, defaults())
	byClass := mustNew(t, with(func(c *guard.Config) { c.RejectPaths = "" }))
	opened := mustNew(t, with(func(c *guard.Config) { c.Allow = []string{"exec"} }))
	off := mustNew(t, with(func(c *guard.Config) { c.Disabled = true }))
	for _, p := range execPaths {
		for _, r := range []string{"GET ", "POST ", "OPTIONS "} {
			if got := ask(t, g, request(r+p), guard.API); got == "" {
				t.Errorf("%s%s: not refused", r, p)
			}
		}
		if got := ask(t, byClass, request(p, upgrade()...), guard.API); got != "allow" {
			t.Errorf("upgrade of %s: refused by %q, want allow", p, got)
		}
		if got := ask(t, opened, request("POST "+p), guard.API); got != "" {
			t.Errorf("%s with --allow exec: refused by %q", p, got)
		}
		if got := ask(t, off, request("POST "+p), guard.API); got != "" {
			t.Errorf("%s without filter: refused by %q", p, got)
		}
		if got := ask(t, g, request("POST "+p), guard.Page); got != "" {
			t.Errorf("%s as a page: refused by %q", p, got)
		}
	}
}

func TestClasses(t *testing.T) {
	const pod = "/api/v1/namespaces/default/pods/web"
	tests := []struct {
		path  string
		class string
	}{
		{pod + "/exec", "exec"}, {pod + "/attach", "attach"}, {pod + "/portforward", "portforward"}, {pod + "/portForward", "portforward"},
		{"/api/v1/nodes/one/proxy/portForward/default/web", "exec"},
		{pod, ""}, {pod + "/log", ""}, {pod + "/proxy/", ""}, {pod + "/ephemeralcontainers", ""}, {pod + "/execute", ""},
		{"/api/v1/namespaces/default/pods/exec", ""}, {"/api/v1/namespaces/default/pods/exec/log", ""},
		{"/api/v1/namespaces/exec/configmaps/attach", ""}, {"/api/v1/namespaces/default/services/exec/proxy/exec", ""},
		{"/api/v1/nodes/one/proxy/logs/exec", ""}, {"/api/v1/nodes/one/proxy/containerLogs/default/web/run", ""},
		{"/api/v1/nodes/one/proxy/", ""}, {"/api/v1/nodes/one/proxy", ""}, {"/api/v1/nodes/run", ""}, {"/api/v1/nodes/one/proxy/runningpods/", ""},
		{"/api/v1/nodes/one/proxy/metrics/cadvisor", ""}, {"/api/v1/namespaces/nodes/services/proxy/proxy/run", ""},
		{"/api/v1/namespaces/default/services/web/proxy/wiki/What%3F", ""}, {"/api/v1/namespaces/default/services/web/proxy/a//b/..%2Fc%252F", ""},
	}
	all := []string{guard.Exec, guard.Attach, guard.PortForward}
	for _, tt := range tests {
		for _, opened := range all {
			g := mustNew(t, with(func(c *guard.Config) { c.Allow, c.RejectPaths = []string{opened}, "" }))
			want := "allow"
			if tt.class == "" || tt.class == opened {
				want = ""
			}
			if got := ask(t, g, request("POST "+tt.path), guard.API); got != want {
				t.Errorf("%s with --allow %s: refused by %q, want %q", tt.path, opened, got, want)
			}
		}
	}
}

// TestOwnListDecides is for users of kubectl proxy who gave --reject-paths: it opens what it does not name.
func TestOwnListDecides(t *testing.T) {
	g := mustNew(t, with(func(c *guard.Config) { c.RejectPaths, c.AllowAll = "^/api/.*/secrets", true }))
	for path, want := range map[string]string{
		"/api/v1/namespaces/default/pods/web/exec":           "",
		"/api/v1/nodes/one/proxy/run/default/web/c":          "",
		"/api/v1/namespaces/default/secrets":                 "reject-paths",
		"/api//v1/namespaces/default/x/..%2Fsecrets":         "reject-paths",
		"/x/%2e%2e/api/v1/namespaces/default/%73ecrets/name": "reject-paths",
	} {
		if got := ask(t, g, request(path), guard.API); got != want {
			t.Errorf("%s: refused by %q, want %q", path, got, want)
		}
	}
}

// TestOpenedClass says which expressions of the default list go with a class.
func TestOpenedClass(t *testing.T) {
	const exec, attach = "/api/v1/namespaces/default/pods/web/exec", "/api/v1/namespaces/default/pods/web/attach"
	tests := []struct {
		allow      string
		all        bool
		reject     string
		wantExec   string
		wantAttach string
	}{
		{"", false, guard.DefaultRejectPaths, "allow", "allow"},
		{"exec", false, guard.DefaultRejectPaths, "", "allow"},
		{"attach", false, guard.DefaultRejectPaths, "allow", ""},
		{"exec attach", false, guard.DefaultRejectPaths, "", ""},
		{"exec", false, "/exec$", "reject-paths", "allow"},
		{"", true, guard.DefaultRejectPaths, "reject-paths", "reject-paths"},
		{"", false, "", "allow", "allow"},
		{"", true, "", "", ""},
	}
	for _, tt := range tests {
		g := mustNew(t, with(func(c *guard.Config) {
			c.Allow, c.AllowAll, c.RejectPaths = strings.Fields(tt.allow), tt.all, tt.reject
		}))
		if got := ask(t, g, request(exec), guard.API); got != tt.wantExec {
			t.Errorf("%+v: exec refused by %q", tt, got)
		}
		if got := ask(t, g, request(attach), guard.API); got != tt.wantAttach {
			t.Errorf("%+v: attach refused by %q", tt, got)
		}
	}
}
