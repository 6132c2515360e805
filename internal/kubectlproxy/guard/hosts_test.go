package guard_test

import (
	"testing"

	"varco.dev/internal/kubectlproxy/guard"
)

func TestHosts(t *testing.T) {
	tests := []struct {
		host string
		want string
	}{
		{"localhost", ""}, {"localhost:8001", ""}, {"LocalHost:8001", ""}, {"localhost.", ""}, {"localhost.:8001", ""},
		{"127.0.0.1", ""}, {"127.0.0.1:8001", ""},
		// kubectl proxy refuses these three but the first: kubernetes/kubernetes#77496.
		{"[::1]", ""}, {"[::1]:8001", ""}, {"::1", ""},
		{"[0:0:0:0:0:0:0:1]:8001", ""},
		{"", "accept-hosts"}, {"evil.example", "accept-hosts"}, {"evil.example:8001", "accept-hosts"},
		{"localhost.evil.example:8001", "accept-hosts"}, {"localhost..", "accept-hosts"}, {"127.0.0.1.evil.example", "accept-hosts"},
		{"127.0.0.2", "accept-hosts"}, {"[::2]:8001", "accept-hosts"}, {"[::1%25lo]:8001", "accept-hosts"}, {"[::1%lo]:8001", "accept-hosts"}, {"[::1", "accept-hosts"},
		{"[::1]evil.example", "accept-hosts"}, {"[localhost]evil", "accept-hosts"}, {"[::ffff:127.0.0.1]:8001", "accept-hosts"},
		{"web.default.svc.localhost:8001", "accept-hosts"}, {"0.0.0.0:8001", "accept-hosts"}, {"2130706433", "accept-hosts"},
		{"evil.example@localhost", "accept-hosts"}, {"localhost\t", "accept-hosts"}, {"localhost/evil", "accept-hosts"},
	}
	g := mustNew(t, defaults())
	off := mustNew(t, with(func(c *guard.Config) { c.Disabled = true }))
	for _, tt := range tests {
		r := request("/api/v1/pods", "Host: "+tt.host)
		for _, place := range []guard.Place{guard.API, guard.Static, guard.Page} {
			if got := ask(t, g, r, place); got != tt.want {
				t.Errorf("host %q at place %d: refused by %q, want %q", tt.host, place, got, tt.want)
			}
			if got := ask(t, off, r, place); got != "" {
				t.Errorf("host %q at place %d without filter: refused by %q", tt.host, place, got)
			}
		}
	}
	if got := ask(t, g, request("/", "Host: web.default.svc.localhost:8001"), guard.Service); got != "" {
		t.Errorf("a Service's own host: refused by %q", got)
	}
}

func TestHostsOfUser(t *testing.T) {
	g := mustNew(t, with(func(c *guard.Config) { c.AcceptHosts = `\.corp$,^10\.` }))
	for host, want := range map[string]string{
		"dev.corp:80": "", "DEV.CORP.": "", "10.1.2.3": "", "x10.1.2.3": "accept-hosts", "localhost": "accept-hosts", "dev.corp.example": "accept-hosts",
	} {
		if got := ask(t, g, request("/api", "Host: "+host), guard.API); got != want {
			t.Errorf("host %q: refused by %q, want %q", host, got, want)
		}
	}
}
