package guard_test

import (
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/kubectlproxy/guard"
)

const token = "3Xq-very.secret_token~"

func tokenGuard(t *testing.T) *guard.Guard {
	return mustNew(t, with(func(c *guard.Config) { c.Token = token }))
}

// taken is what TakeToken made of a request.
type taken struct {
	status int    // of the answer; 0 if the request goes on
	url    string // where it goes on, or leads to
	header http.Header
}

func take(t *testing.T, g *guard.Guard, r *http.Request) taken {
	t.Helper()
	w := httptest.NewRecorder()
	next, err := g.TakeToken(w, r)
	var refusal *guard.Refusal
	if errors.As(err, &refusal) {
		return taken{status: refusal.Code, header: w.Header()}
	}
	if err != nil {
		t.Fatal(err)
	}
	if next == nil {
		return taken{status: w.Code, url: w.Header().Get("Location"), header: w.Header()}
	}
	if next.RequestURI != next.URL.RequestURI() && next != r {
		t.Errorf("RequestURI is %q, want %q", next.RequestURI, next.URL.RequestURI())
	}
	return taken{url: next.URL.RequestURI(), header: next.Header}
}

func TestTakeToken(t *testing.T) {
	tests := []struct {
		name    string
		line    string
		headers []string
		status  int
		url     string
	}{
		{"none", "/api", nil, 401, ""},
		{"wrong header", "/api", []string{"X-Varco-Token: x"}, 401, ""},
		{"wrong cookie", "/api", []string{"Cookie: varco-token-8001=x"}, 401, ""},
		{"cookie of another port", "/api", []string{"Cookie: varco-token-8002=" + token}, 401, ""},
		{"wrong in the query", "/api?varco-token=x", nil, 401, ""},
		{"empty in the query", "/api?varco-token=", nil, 401, ""},
		{"wrong in the path", "/token/x/api", nil, 401, ""},
		{"begin of it", "/token/" + token[:5] + "/api", nil, 401, ""},
		{"more than it", "/token/" + token + "x/api", nil, 401, ""},
		{"empty header", "/api", []string{"X-Varco-Token: "}, 401, ""},
		{"bearer", "/api", []string{"Authorization: Bearer " + token}, 401, ""},

		{"header", "/api?a=b", []string{"X-Varco-Token: " + token}, 0, "/api?a=b"},
		{"cookie", "/api", []string{"Cookie: a=b; varco-token-8001=" + token}, 0, "/api"},
		{"second cookie of the name", "/api", []string{"Cookie: varco-token-8001=old; varco-token-8001=" + token}, 0, "/api"},
		{"cookie at the default port", "/api", []string{"Host: localhost", "Cookie: varco-token=" + token}, 0, "/api"},
		{"cookie, wrong in the query", "/api?varco-token=old&a=b", []string{"Cookie: varco-token-8001=" + token}, 0, "/api?a=b"},
		{"path", "/token/" + token + "/api/v1/pods?watch=1", nil, 0, "/api/v1/pods?watch=1"},
		{"path as it was sent", "/token/" + token + "//api/..%2F%2f/x%20y/", nil, 0, "//api/..%2F%2f/x%20y/"},
		{"escaped in the path", "/token/%33Xq-very.secret_token~/api", nil, 0, "/api"},
		{"path alone", "/token/" + token, nil, 0, "/"},
		{"path, POST", "POST /token/" + token + "/api", nil, 0, "/api"},
		{"path of another place", "/api/token/" + token + "/x", nil, 401, ""},
		{"query, POST", "POST /api?a=%2F&varco-token=" + token + "&b", nil, 0, "/api?a=%2F&b"},
		{"query, upgrade", "/api?varco-token=" + token, upgrade(), 0, "/api"},

		{"query", "/?varco-token=" + token, nil, 303, "/"},
		{"query, HEAD", "HEAD /?varco-token=" + token, nil, 303, "/"},
		{"query, rest as it was sent", "/a%2Fb//../c?x=%20&varco-token=" + token + "&y", nil, 303, "/a%2Fb//../c?x=%20&y"},
		{"query, escaped name", "/?%76arco-token=" + token, nil, 303, "/"},
		{"query twice", "/?varco-token=old&varco-token=" + token, nil, 303, "/"},
		{"query twice, wrong last", "/?varco-token=" + token + "&varco-token=old", nil, 303, "/"},
		{"query and cookie", "/?varco-token=" + token, []string{"Cookie: varco-token-8001=" + token}, 303, "/"},
		{"path that browsers would take for a host", "//evil.example/?varco-token=" + token, nil, 303, "/.//evil.example/"},
		{"path that browsers would take for a host, backslash", "/\\evil.example/?varco-token=" + token, nil, 303, "/%5Cevil.example/"},
	}
	for _, tt := range tests {
		got := take(t, tokenGuard(t), request(tt.line, tt.headers...))
		if got.status != tt.status || got.url != tt.url {
			t.Errorf("%s: status %d, url %q, want %d, %q", tt.name, got.status, got.url, tt.status, tt.url)
		}
		for name, values := range got.header {
			if text := strings.Join(values, "\n"); name != "Set-Cookie" && name != "Authorization" && strings.Contains(text, token) {
				t.Errorf("%s: the token went on in %s: %s", tt.name, name, text)
			}
		}
	}
}

func TestTokenIsTakenOut(t *testing.T) {
	r := request("/api", "X-Varco-Token: "+token, "Cookie: a=b;varco-token-8001=x; c=\"d e\"; varco-token=y", "Cookie: varco-token-1=z",
		"Cookie: varco-tokens=1", "Referer: http://localhost:8001/?varco-token="+token, "Authorization: Basic x")
	want := http.Header{"Cookie": {`a=b; c="d e"`, "varco-tokens=1"}, "Authorization": {"Basic x"}}
	if diff := cmp.Diff(want, take(t, tokenGuard(t), r).header); diff != "" {
		t.Errorf("header that goes on (-want +got):\n%s", diff)
	}
	for referer, kept := range map[string]bool{
		"http://localhost:8001/token/" + token + "/api":          false,
		"http://localhost:8001/token/%33Xq-very.secret_token~/x": false,
		"http://localhost:8001/api?x=token":                      true,
	} {
		got := take(t, tokenGuard(t), request("/api", "X-Varco-Token: "+token, "Referer: "+referer))
		if (got.header.Get("Referer") != "") != kept {
			t.Errorf("referer %s became %q", referer, got.header.Get("Referer"))
		}
	}
}

func TestTokenCookie(t *testing.T) {
	got := take(t, tokenGuard(t), request("/?varco-token="+token, "Sec-Fetch-Site: none"))
	want := "varco-token-8001=" + token + "; Path=/; HttpOnly; SameSite=Strict"
	if c := got.header.Get("Set-Cookie"); c != want || got.status != 303 {
		t.Errorf("status %d, cookie %q, want 303, %q", got.status, c, want)
	}
	r := request("https://localhost:8001/?varco-token=" + token)
	if c := take(t, tokenGuard(t), r).header.Get("Set-Cookie"); !strings.HasSuffix(c, "; Secure; SameSite=Strict") {
		t.Errorf("cookie over TLS is %q", c)
	}
	// A link of another site: the browser would not send the cookie after a redirect.
	got = take(t, tokenGuard(t), request("/a?varco-token="+token+"&b=c", "Sec-Fetch-Site: cross-site"))
	if got.status != 200 || got.header.Get("Refresh") != "0;url=/a?b=c" || got.header.Get("Set-Cookie") != want {
		t.Errorf("link of another site: status %d, header %v", got.status, got.header)
	}
}

// TestLinksOfOtherSites comes from pages whose clicks carry no SameSite=Strict cookie.
func TestLinksOfOtherSites(t *testing.T) {
	link := []string{"Sec-Fetch-Site: cross-site", "Sec-Fetch-Mode: navigate", "Sec-Fetch-Dest: document"}
	got := take(t, tokenGuard(t), request("//a?b=%2F", link...))
	if got.status != 200 || got.header.Get("Refresh") != "0;url=/.//a?b=%2F" || got.header.Get("Set-Cookie") != "" {
		t.Errorf("link: status %d, header %v", got.status, got.header)
	}
	for name, r := range map[string]*http.Request{
		"led on":  request("/a", "Sec-Fetch-Site: same-origin", link[1], link[2]),
		"frame":   request("/a", link[0], link[1], "Sec-Fetch-Dest: iframe"),
		"script":  request("/a", link[0], "Sec-Fetch-Mode: no-cors", "Sec-Fetch-Dest: script"),
		"form":    request("POST /a", link...),
		"program": request("/a"),
	} {
		if got := take(t, tokenGuard(t), r); got.status != 401 {
			t.Errorf("%s: status %d, want 401", name, got.status)
		}
	}
}

func TestNoToken(t *testing.T) {
	r := request("/token/x/api?varco-token=x", "Cookie: varco-token-8001=x", "X-Varco-Token: x")
	w := httptest.NewRecorder()
	if next, err := mustNew(t, defaults()).TakeToken(w, r); err != nil || next != r || len(r.Header) != 2 {
		t.Errorf("without a token: error %v, header %v", err, r.Header)
	}

	_, err := tokenGuard(t).TakeToken(httptest.NewRecorder(), request("/api"))
	var refusal *guard.Refusal
	if !errors.As(err, &refusal) || refusal.Rule != "require-token" {
		t.Fatalf("missing token: %v", err)
	}
	status := refusal.Status().Status()
	if status.Code != 401 || status.Reason != metav1.StatusReasonUnauthorized || !strings.Contains(status.Message, "X-Varco-Token") {
		t.Errorf("missing token: %+v", status)
	}
}
