package guard_test

import (
	"crypto/tls"
	"testing"

	"varco.dev/internal/kubectlproxy/guard"
)

// TestHostilePages asks what web pages can make a browser ask.
func TestHostilePages(t *testing.T) {
	const form = "POST /api/v1/namespaces/default/pods" // a missing Content-Type is JSON to the API server
	watch := "/api/v1/pods?watch=true"
	tests := []struct {
		name    string
		line    string
		headers []string
		want    string
	}{
		{"DNS rebinding", "/api/v1/secrets", []string{"Host: evil.example:8001", "Sec-Fetch-Site: same-origin"}, "accept-hosts"},
		{"DNS rebinding, POST", form, []string{"Host: evil.example:8001", "Origin: http://evil.example:8001"}, "accept-hosts"},
		{"POST of another site", form, []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site"}, "accept-origins"},
		{"POST of another site, old browser", form, []string{"Origin: https://evil.example"}, "accept-origins"},
		{"POST of another site without Origin", form, []string{"Sec-Fetch-Site: cross-site"}, "accept-origins"},
		{"POST of another port", form, []string{"Origin: http://localhost:3000", "Sec-Fetch-Site: same-site"}, "accept-origins"},
		{"POST of another port, old browser", form, []string{"Origin: http://localhost:3000"}, "accept-origins"},
		{"POST of the same host's own port", form, []string{"Origin: http://localhost"}, "accept-origins"},
		{"POST of another scheme", form, []string{"Origin: https://localhost:8001"}, "accept-origins"},
		{"POST of another name of this host", form, []string{"Origin: http://127.0.0.1:8001", "Sec-Fetch-Site: cross-site"}, "accept-origins"},
		{"POST of a Service's page", form, []string{"Origin: http://80.web.default.svc.localhost:8001", "Sec-Fetch-Site: same-site"}, "accept-origins"},
		{"sandboxed frame", form, []string{"Origin: null", "Sec-Fetch-Site: cross-site"}, "accept-origins"},
		{"sandboxed frame, old browser", form, []string{"Origin: null"}, "accept-origins"},
		{"file", form, []string{"Origin: file://"}, "accept-origins"},
		{"extension", form, []string{"Origin: chrome-extension://abcdef"}, "accept-origins"},
		{"two origins", form, []string{"Origin: http://localhost:8001", "Origin: https://evil.example"}, "accept-origins"},
		{"two sites", form, []string{"Sec-Fetch-Site: same-origin", "Sec-Fetch-Site: cross-site"}, "accept-origins"},
		{"origin with a user", form, []string{"Origin: http://evil@localhost:8001"}, "accept-origins"},
		{"origin with a path", form, []string{"Origin: http://localhost:8001/"}, "accept-origins"},
		{"empty origin", form, []string{"Origin: "}, "accept-origins"},
		{"origin that begins alike", form, []string{"Origin: http://localhost:8001.evil.example"}, "accept-origins"},
		{"DELETE", "DELETE /api/v1/namespaces/default", []string{"Origin: https://evil.example"}, "accept-origins"},
		{"own method", "PURGE /api/v1/namespaces/default", []string{"Origin: https://evil.example"}, "accept-origins"},
		{"WebSocket of another site", watch, upgrade("Origin: https://evil.example"), "accept-origins"},
		{"WebSocket of another site, new browser", watch, upgrade("Origin: https://evil.example", "Sec-Fetch-Site: cross-site"), "accept-origins"},
		{"WebSocket of a Service's page", watch, upgrade("Origin: http://80.web.default.svc.localhost:8001"), "accept-origins"},
		{"WebSocket of a sandboxed frame", watch, upgrade("Origin: null"), "accept-origins"},
		{"half an upgrade", watch, []string{"Upgrade: websocket", "Origin: https://evil.example"}, "accept-origins"},
		{"the other half", watch, []string{"Connection: keep-alive, UPGRADE", "Origin: https://evil.example"}, "accept-origins"},
		{"WebSocket over HTTP/2", "CONNECT /api/v1/pods", nil, "method"},

		{"program", form, nil, ""},
		{"program, WebSocket", watch, upgrade(), ""},
		{"own page", form, []string{"Origin: http://localhost:8001", "Sec-Fetch-Site: same-origin"}, ""},
		{"own page, old browser", form, []string{"Origin: http://localhost:8001"}, ""},
		{"own page, upper case", form, []string{"Host: LOCALHOST:8001", "Origin: http://localhost:8001"}, ""},
		{"own page, port 80", form, []string{"Host: localhost", "Origin: http://localhost"}, ""},
		{"own page, port 80 written", form, []string{"Host: localhost:80", "Origin: http://localhost"}, ""},
		{"own page, IPv6", form, []string{"Host: [::1]:8001", "Origin: http://[::1]:8001"}, ""},
		{"own page behind something that ends TLS", form, []string{"Origin: https://localhost:8001", "Sec-Fetch-Site: same-origin"}, ""},
		{"own WebSocket", watch, upgrade("Origin: http://localhost:8001", "Sec-Fetch-Site: same-origin"), ""},
		{"address bar", form, []string{"Sec-Fetch-Site: none"}, ""},
		{"link of another site", "/api/v1/pods", []string{"Sec-Fetch-Site: cross-site"}, ""}, // its page cannot read the answer
		{"preflight", "OPTIONS /api/v1/pods", []string{"Origin: https://evil.example", "Sec-Fetch-Site: cross-site"}, ""},
	}
	g := mustNew(t, defaults())
	off := mustNew(t, with(func(c *guard.Config) { c.Disabled = true }))
	for _, tt := range tests {
		for _, place := range []guard.Place{guard.API, guard.Static, guard.Page} {
			if got := ask(t, g, request(tt.line, tt.headers...), place); got != tt.want {
				t.Errorf("%s, place %d: refused by %q, want %q", tt.name, place, got, tt.want)
			}
		}
		if got := ask(t, off, request(tt.line, tt.headers...), guard.API); got != "" && got != "method" {
			t.Errorf("%s without filter: refused by %q", tt.name, got)
		}
	}
}

func TestServicePages(t *testing.T) {
	const host = "Host: 80.web.default.svc.localhost:8001"
	g := mustNew(t, defaults())
	for origin, want := range map[string]string{
		"http://80.web.default.svc.localhost:8001":   "",
		"http://80.other.default.svc.localhost:8001": "accept-origins",
		"http://localhost:8001":                      "accept-origins",
	} {
		if got := ask(t, g, request("POST /login", host, "Origin: "+origin), guard.Service); got != want {
			t.Errorf("origin %s: refused by %q, want %q", origin, got, want)
		}
		if got := ask(t, g, request("/socket", upgrade(host, "Origin: "+origin)...), guard.Service); got != want {
			t.Errorf("WebSocket of origin %s: refused by %q, want %q", origin, got, want)
		}
	}
}

func TestOriginsOfUser(t *testing.T) {
	g := mustNew(t, with(func(c *guard.Config) { c.AcceptOrigins = `^https://console\.example$,^null$` }))
	for origin, want := range map[string]string{
		"https://console.example": "", "HTTPS://Console.example": "", "null": "", "http://console.example": "accept-origins",
		"https://console.example.evil.example": "accept-origins",
	} {
		r := request("POST /api/v1/pods", "Origin: "+origin, "Sec-Fetch-Site: cross-site")
		if got := ask(t, g, r, guard.API); got != want {
			t.Errorf("origin %s: refused by %q, want %q", origin, got, want)
		}
	}
}

func TestOriginOverTLS(t *testing.T) {
	g := mustNew(t, defaults())
	for origin, want := range map[string]string{"https://localhost:8001": "", "http://localhost:8001": "accept-origins"} {
		r := request("POST /api/v1/pods", "Origin: "+origin)
		r.TLS = &tls.ConnectionState{}
		if got := ask(t, g, r, guard.API); got != want {
			t.Errorf("origin %s: refused by %q, want %q", origin, got, want)
		}
	}
	r := request("POST /api/v1/pods", "Host: localhost", "Origin: https://localhost:443")
	r.TLS = &tls.ConnectionState{}
	if got := ask(t, g, r, guard.API); got != "" {
		t.Errorf("own port written out: refused by %q", got)
	}
}

// TestAnyUpgrade has a page of another site ask for an upgrade, or for half of one.
func TestAnyUpgrade(t *testing.T) {
	g := mustNew(t, defaults())
	for _, tt := range []struct {
		headers []string
		want    string
	}{
		{upgrade(), "accept-origins"},
		{[]string{"Connection: keep-alive, upgrade", "Upgrade: SPDY/3.1"}, "accept-origins"},
		{[]string{"Connection: keep-alive", "Connection: UPGRADE", "Upgrade: x"}, "accept-origins"},
		{[]string{"Upgrade: websocket"}, "accept-origins"},
		{[]string{"Connection: Upgrade"}, "accept-origins"},
		{[]string{"Connection: keep-alive"}, ""},
	} {
		if got := ask(t, g, request("/api/v1/pods", append(tt.headers, "Origin: https://evil.example")...), guard.API); got != tt.want {
			t.Errorf("%q: refused by %q, want %q", tt.headers, got, tt.want)
		}
	}
}

// TestHiddenRequests asks for HTTP/2 on the same connection, on which nobody could see what is asked.
func TestHiddenRequests(t *testing.T) {
	headers := []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: websocket, H2C", "HTTP2-Settings: x"}
	tests := []struct {
		name   string
		config guard.Config
		place  guard.Place
		want   string
	}{
		{"API", defaults(), guard.API, "upgrade"},
		{"Service", defaults(), guard.Service, ""},
		{"without filter", guard.Config{Disabled: true}, guard.API, ""},
		{"without filter, --deny", guard.Config{Disabled: true, Deny: []string{"secrets"}}, guard.API, "upgrade"},
	}
	for _, tt := range tests {
		if got := ask(t, mustNew(t, tt.config), request("/api/v1/pods", headers...), tt.place); got != tt.want {
			t.Errorf("%s: refused by %q, want %q", tt.name, got, tt.want)
		}
	}
	// curl --http2 asks for nothing else, and gets an ordinary answer.
	alone := []string{"Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: x"}
	if got := ask(t, mustNew(t, defaults()), request("/api/v1/pods", alone...), guard.API); got != "" {
		t.Errorf("alone: refused by %q", got)
	}
}
