package ui_test

import (
	"encoding/json"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/kubectlproxy/ui"
)

// answer asks a handler of its own, with headers as pairs.
func answer(method, path string, header ...string) *http.Response {
	r := httptest.NewRequest(method, path, nil)
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	ui.Handler(func(*http.Request) ui.Info { return ui.Info{Version: "v1", Token: "t0k"} }).ServeHTTP(w, r)
	return w.Result()
}

func TestHandler(t *testing.T) {
	const html, js, plain = "text/html; charset=utf-8", "text/javascript; charset=utf-8", "text/plain; charset=utf-8"
	for _, test := range []struct {
		method, path string
		code         int
		kind, cache  string
	}{
		{"GET", "/", 200, html, "no-cache"},
		{"HEAD", "/", 200, html, "no-cache"},
		{"GET", "/?x=1", 200, html, "no-cache"},
		{"GET", "/-/ui/app.js", 200, js, "no-cache"},
		{"GET", "/-/ui/theme.js", 200, js, "no-cache"},
		{"GET", "/-/ui/style.css", 200, "text/css; charset=utf-8", "no-cache"},
		{"GET", "/-/ui/icon.svg", 200, "image/svg+xml", "no-cache"},
		{"GET", "/-/ui/info.json", 200, "application/json", "no-store"},
		{"GET", "/-/ui/", 404, plain, ""},
		{"GET", "/-/ui/index.html", 404, plain, ""},
		{"GET", "/-/ui/../handler.go", 404, plain, ""},
		{"GET", "/-/ui//app.js", 404, plain, ""},
		{"GET", "/favicon.ico", 404, plain, ""},
		{"POST", "/", 405, plain, ""},
		{"DELETE", "/-/ui/info.json", 405, plain, ""},
		{"OPTIONS", "/", 405, plain, ""},
	} {
		t.Run(test.method+" "+test.path, func(t *testing.T) {
			got := answer(test.method, test.path)
			if got.StatusCode != test.code {
				t.Errorf("code %d, want %d", got.StatusCode, test.code)
			}
			want := map[string]string{
				"Content-Type":  test.kind,
				"Cache-Control": test.cache,
				"Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; " +
					"img-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
				"X-Content-Type-Options":     "nosniff",
				"Referrer-Policy":            "no-referrer",
				"Cross-Origin-Opener-Policy": "same-origin",
			}
			for name, value := range want {
				if have := got.Header.Get(name); have != value {
					t.Errorf("%s: %q, want %q", name, have, value)
				}
			}
			if allow := got.Header.Get("Allow"); (allow == "GET, HEAD") != (test.code == 405) {
				t.Errorf("Allow: %q", allow)
			}
		})
	}
}

func TestHandlerNotModified(t *testing.T) {
	first := answer("GET", "/-/ui/app.js")
	tag := first.Header.Get("ETag")
	if again := answer("GET", "/-/ui/app.js", "If-None-Match", tag); again.StatusCode != http.StatusNotModified {
		t.Errorf("with its ETag %s: code %d, want 304", tag, again.StatusCode)
	}
	if other := answer("GET", "/-/ui/style.css", "If-None-Match", tag); other.StatusCode != http.StatusOK {
		t.Errorf("with the ETag of another file: code %d, want 200", other.StatusCode)
	}
}

func TestInfo(t *testing.T) {
	var got map[string]any
	if err := json.NewDecoder(answer("GET", ui.InfoPath).Body).Decode(&got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"version": "v1", "apiPrefix": "/", "cluster": "", "contexts": nil, "originDomain": "", "token": "t0k",
		"readOnly": false, "refused": nil, "denied": nil,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestAssets reads the assets for what the policy or the house forbids. The browser's tests would miss it in a corner
// that they do not reach.
func TestAssets(t *testing.T) {
	forbidden := []struct{ name, expression string }{
		{"text as markup", `(?i)innerHTML|outerHTML|insertAdjacentHTML|document\.write|DOMParser|srcdoc|\beval\(|new Function`},
		{"an inline handler or style", `\s(on[a-z]+|style)="`},
		{"an inline script", `<script>|<style>|javascript:`},
		{"another origin", `(?:src|href|from|import|url\()[^\n]{0,3}["'(]https?://`},
	}
	names, err := filepath.Glob("assets/*")
	if err != nil || len(names) == 0 {
		t.Fatalf("assets: %q, %v", names, err)
	}
	const maxLines = 300
	for _, name := range names {
		b, err := os.ReadFile(name)
		if err != nil {
			t.Fatal(err)
		}
		for _, f := range forbidden {
			if found := regexp.MustCompile(f.expression).Find(b); found != nil {
				t.Errorf("%s has %s: %s", name, f.name, found)
			}
		}
		if lines := strings.Count(string(b), "\n"); lines > maxLines {
			t.Errorf("%s has %d lines, the limit is %d", name, lines, maxLines)
		}
	}
}
