package demo

import (
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// gatewayOf starts a program that says that it serves where a server of the test does.
func gatewayOf(t *testing.T, h http.HandlerFunc, script string) (*Gateway, string, error) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	at := strings.TrimPrefix(s.URL, "http://")
	program := filepath.Join(t.TempDir(), "varco")
	text := fmt.Sprintf("#!/bin/sh\nAT=%s\n%s\n", at, script)
	if err := os.WriteFile(program, []byte(text), 0o755); err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	g, err := ShowGateway(t.Context(), GatewayConfig{Varco: program, Kubeconfig: "kubeconfig", Out: &out})
	if g != nil {
		t.Cleanup(g.Stop)
	}
	return g, strings.ReplaceAll(out.String(), at[strings.LastIndexByte(at, ':'):], ":PORT"), err
}

const serves = `echo "Starting to serve on $AT"; echo "Open http://localhost:${AT##*:}/"; exec sleep 100`

func TestGatewayShows(t *testing.T) {
	g, text, err := gatewayOf(t, func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.Host, "80.echo.default.svc.localhost:"):
			w.Header().Set("X-Pod", "echo-1")
		case strings.HasSuffix(r.URL.Path, "/exec"):
			w.WriteHeader(http.StatusForbidden)
		case strings.HasSuffix(r.URL.Path, "/pods"):
			fmt.Fprint(w, `{"items":[{},{}]}`)
		default:
			w.Header().Set("Content-Type", "text/html")
		}
	}, serves)
	if err != nil {
		t.Fatal(err)
	}
	want := `
FROM  TO                       URL                                                                     EXPECTED     SEEN
user  start page               http://localhost:PORT/                                                 HTML         200, text/html
user  API                      http://localhost:PORT/api/v1/namespaces/default/pods                   pods         2 pods
user  Service by its own name  http://80.echo.default.svc.localhost:PORT/                             a pod of it  pod echo-1
user  command in a pod         http://localhost:PORT/api/v1/namespaces/default/pods/visitor/exec?command=id  refused      refused
`
	fields := func(s string) string { return strings.Join(strings.Fields(s), " ") } // how wide the port is differs
	if _, table, _ := strings.Cut(text, "\n"); fields(table) != fields(want) {
		t.Errorf("got %s\nwant %s", table, want)
	}
	g.Stop()
	if err := syscall.Kill(g.process.Process.Pid, 0); !errors.Is(err, syscall.ESRCH) {
		t.Errorf("the program is left: %v", err)
	}
}

func TestGatewayShowsWhatIsWrong(t *testing.T) {
	g, text, err := gatewayOf(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"items":[]}`) }, serves)
	if g == nil || !errors.Is(err, ErrFailed) {
		t.Fatalf("%v, error %v", g, err)
	}
	if n := strings.Count(text, "✗"); n != 4 {
		t.Errorf("%d rows are wrong, want all 4:\n%s", n, text)
	}
}

func TestGatewayThatDoesNotStart(t *testing.T) {
	for script, want := range map[string]string{
		"echo it cannot be >&2; exit 1":    "it cannot be",
		"echo hello; exec sleep 100":       `it said "hello\n"`,
		`echo "Starting to serve on $AT"`:  "read where it serves",
		"exec /does/not/exist 2>/dev/null": "read where it serves",
	} {
		g, _, err := gatewayOf(t, func(http.ResponseWriter, *http.Request) {}, script)
		if g != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: error %v, want %q", script, err, want)
		}
	}
}
