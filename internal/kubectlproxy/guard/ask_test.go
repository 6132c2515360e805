package guard_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"varco.dev/internal/kubectlproxy/guard"
)

// defaults is the configuration of a user who gives no flags.
func defaults() guard.Config {
	return guard.Config{
		AcceptPaths: guard.DefaultAcceptPaths, RejectPaths: guard.DefaultRejectPaths,
		AcceptHosts: guard.DefaultAcceptHosts, RejectMethods: guard.DefaultRejectMethods,
	}
}

func with(change func(*guard.Config)) guard.Config {
	c := defaults()
	change(&c)
	return c
}

func mustNew(t testing.TB, c guard.Config) *guard.Guard {
	t.Helper()
	g, err := guard.New(c)
	if err != nil {
		t.Fatal(err)
	}
	return g
}

// request is one for localhost:8001. Headers are written "Name: value".
func request(line string, headers ...string) *http.Request {
	method, target, ok := strings.Cut(line, " ")
	if !ok {
		method, target = "GET", line
	}
	r := httptest.NewRequest(method, target, nil)
	r.Host = "localhost:8001"
	for _, h := range headers {
		name, value, _ := strings.Cut(h, ": ")
		if name == "Host" {
			r.Host = value
		} else {
			r.Header.Add(name, value)
		}
	}
	return r
}

// ask returns the rule that refuses a request, "" if it may go on.
func ask(t testing.TB, g *guard.Guard, r *http.Request, place guard.Place) string {
	t.Helper()
	err := g.Check(r, place, r.URL.EscapedPath())
	var refusal *guard.Refusal
	if errors.As(err, &refusal) {
		return refusal.Rule
	}
	if err != nil {
		t.Fatalf("error %v is no refusal", err)
	}
	return ""
}

// upgrade are the headers of a WebSocket handshake.
func upgrade(more ...string) []string {
	return append([]string{"Connection: Upgrade", "Upgrade: websocket", "Sec-Websocket-Version: 13"}, more...)
}
