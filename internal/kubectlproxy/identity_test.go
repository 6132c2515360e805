package kubectlproxy_test

import (
	"context"
	"fmt"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"varco.dev/internal/kubectlproxy/cluster"
	"varco.dev/internal/kubectlproxy/guard"
	"varco.dev/internal/nettest"
)

func testToken(t *testing.T) {
	metrics := free(t)
	s := newStage(t, func(s *stage) { s.config.RequireToken, s.config.MetricsAddress = true, metrics.address })
	page, err := url.Parse(strings.TrimSpace(strings.TrimPrefix(s.page, "Open ")))
	if err != nil || page.Query().Get(guard.TokenParameter) == "" {
		t.Fatalf("second line of output %q: %v", s.page, err)
	}
	token := page.Query().Get(guard.TokenParameter)
	s.expect(get("/api/v1/pods"), passed, "401 Status Unauthorized")
	s.api.take(t)
	for _, raw := range []string{
		get("/api/v1/pods?" + guard.TokenParameter + "=wrong"), get("/api/v1/pods", guard.TokenHeader+": wrong"),
		get("/token/wrong/api/v1/pods"), get("/", "Host: 80.app.default.svc.localhost"),
	} {
		if got := s.ours.send(t, raw).String(); got != "401 Status Unauthorized" {
			t.Errorf("%q to %q", got, raw)
		}
	}
	s.api.untouched(t)
	if counted := metrics.send(t, get("/metrics")).Body; !strings.Contains(counted, `varco_kubectl_proxy_refused_total{rule="require-token"} 5`) {
		t.Errorf("refusals are not counted: %s", counted)
	}
	s.tokenPasses(token)
	t.Run("browser", func(t *testing.T) { s.tokenOfBrowser(t, token) })
	t.Run("client-go", func(t *testing.T) { s.tokenOfClient(t, token) })
}

// tokenPasses checks the ways that programs have, and that the API server sees nothing of it.
func (s *stage) tokenPasses(token string) {
	s.t.Helper()
	for _, raw := range []string{
		get("/api/v1/pods", guard.TokenHeader+": "+token, "Cookie: theme=dark", "Referer: http://localhost/?"+guard.TokenParameter+"="+token),
		get("/token/"+token+"/api/v1/pods", "Cookie: theme=dark; "+guard.TokenCookie+"="+token),
		request("POST", "/api/v1/pods?a=1&"+guard.TokenParameter+"="+token, "{}", "Cookie: theme=dark"),
	} {
		if got := s.ours.send(s.t, raw); got.Code != 200 {
			s.t.Errorf("%v to %q", got, raw)
			continue
		}
		seen := s.api.take(s.t)
		if text := seen.RequestURI + headerText(seen.Header); strings.Contains(text, token) || !strings.Contains(text, "theme=dark") {
			s.t.Errorf("the API server sees\n%s", text)
		}
	}
}

func (s *stage) tokenOfBrowser(t *testing.T, token string) {
	first := s.ours.send(t, get("/api/v1/pods?limit=1&"+guard.TokenParameter+"="+token))
	if first.String() != "303 to /api/v1/pods?limit=1" {
		t.Fatalf("got %v", first)
	}
	set := first.Header.Get("Set-Cookie")
	for _, want := range []string{"HttpOnly", "SameSite=Strict", "Path=/"} {
		if !strings.Contains(set, want) {
			t.Errorf("cookie %q is not %s", set, want)
		}
	}
	cookie, _, _ := strings.Cut(set, ";")
	if got := s.ours.send(t, get("/api/v1/pods?limit=1", "Cookie: "+cookie)).String(); got != passed+"?limit=1" {
		t.Errorf("with the cookie: %q", got)
	}
	if got := s.api.take(t).Header.Get("Cookie"); got != "" {
		t.Errorf("the API server sees the cookie %q", got)
	}
}

// tokenOfClient uses the prefix as the server of a kubeconfig.
func (s *stage) tokenOfClient(t *testing.T, token string) {
	client, err := kubernetes.NewForConfig(&rest.Config{Host: s.ours.url("/token/" + token)})
	if err != nil {
		t.Fatal(err)
	}
	s.api.answers(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		fmt.Fprintf(w, `{"kind": "Namespace", "apiVersion": "v1", "metadata": {"name": %q}}`, strings.TrimPrefix(r.URL.Path, "/api/v1/namespaces/"))
	})
	got, err := client.CoreV1().Namespaces().Get(context.Background(), "default", metav1.GetOptions{})
	if err != nil || got.Name != "default" {
		t.Errorf("client-go gets %v, error %v", got, err)
	}
}

// stranger asks for / as another user of this computer, and returns the code.
func stranger(t *testing.T, network, address string) string {
	t.Helper()
	cmd := exec.Command("/proc/self/exe") // others cannot enter the folder that the binary is in
	cmd.Env = append(os.Environ(), role+"="+asStranger, roleData+"="+network+" "+address)
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 54321, Gid: 54321}}
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return strings.TrimSpace(string(out))
}

func testSameUser(t *testing.T) {
	nettest.NeedRoot(t)
	s := newStage(t, func(s *stage) { s.config.SameUser = true })
	s.expect(get("/"), "200 GET /", "200 GET /")
	if got := stranger(t, "tcp", s.original.address); got != "200" {
		t.Errorf("kubectl proxy answers another user with %s: has it changed?", got)
	}
	if got := stranger(t, "tcp", s.ours.address); got != "403" {
		t.Errorf("another user gets %s", got)
	}
	dir := t.TempDir()
	for _, d := range []string{dir, filepath.Dir(dir)} {
		if err := os.Chmod(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	u := prepare(t)
	u.config.SameUser, u.config.UnixSocket = true, filepath.Join(dir, "s")
	u.startOurs()
	if got := u.ours.send(t, get("/")).Code; got != 200 {
		t.Errorf("this user gets %d on the unix socket", got)
	}
	if got := stranger(t, "unix", u.ours.address); !strings.Contains(got, "permission denied") {
		t.Errorf("another user gets %s from a socket of mode 0700", got)
	}
	if err := os.Chmod(u.ours.address, 0o777); err != nil {
		t.Fatal(err)
	}
	if got := stranger(t, "unix", u.ours.address); got != "403" {
		t.Errorf("another user gets %s on an open unix socket", got)
	}
}

func withContexts(names ...string) func(*stage) {
	return func(s *stage) {
		for _, name := range []string{"prod", "team/a"} {
			other := newAPIServer(s.t)
			other.answers(func(w http.ResponseWriter, r *http.Request) { fmt.Fprintf(w, "%s has %s", name, r.RequestURI) })
			s.add(name, other, "")
		}
		s.config.Clusters.Contexts = names
	}
}

func testContexts(t *testing.T) {
	s := newStage(t, withContexts(cluster.AllContexts))
	for path, want := range map[string]string{
		"/clusters/prod/api/v1/pods?limit=1":             "200 prod has /api/v1/pods?limit=1",
		"/clusters/prod/a%2Fb//c":                        "200 prod has /a%2Fb//c",
		"/clusters/team%2Fa/version":                     "200 team/a has /version",
		"/clusters/main/version":                         "200 GET /version",
		"/version":                                       "200 GET /version",
		"/clusters/prod":                                 "200 prod has /",
		"/clusters/none/version":                         "404 Status NotFound",
		"/clusters/team/a/version":                       "404 Status NotFound",
		"/clusters/prod/api/v1/namespaces/d/pods/p/exec": oursNo,
	} {
		original := "200 GET " + path
		if strings.Contains(path, "//") {
			original = "307 to /clusters/prod/a%252Fb/c" // escaped twice
		}
		s.expect(get(path), original, want)
	}
	s = newStage(t, withContexts("prod"))
	s.expect(get("/clusters/prod/version"), "200 GET /clusters/prod/version", "200 prod has /version")
	if got := s.ours.send(t, get("/clusters/main/version")).status(); got.Code != 404 || !strings.Contains(got.Message, "prod") {
		t.Errorf("a context that is not served: %+v", got)
	}
	bad := prepare(t, withContexts("prod", "nowhere"))
	if err := bad.runs(); err == nil || !strings.Contains(err.Error(), `"nowhere"`) {
		t.Errorf("error %v, want one that names the context", err)
	}
}
