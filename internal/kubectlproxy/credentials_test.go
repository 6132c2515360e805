package kubectlproxy_test

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"varco.dev/internal/kubectlproxy/cluster"
)

const unauthorized = "401 Unauthorized"

func testAuthorization(t *testing.T) {
	own := get("/api/v1/pods", "Authorization: Bearer other")
	s := newStage(t)
	s.api.accept("secret")
	s.expect(get("/api/v1/pods"), passed, passed)
	s.expect(own, unauthorized, passed)
	if got := s.ours.send(t, own).Header.Get("Warning"); !strings.Contains(got, "--client-authorization") {
		t.Errorf("the answer's warning is %q", got)
	}
	s = newStage(t, func(s *stage) { s.config.Clusters.ClientAuthorization = cluster.ForwardAuthorization })
	s.api.accept("other")
	s.expect(own, passed, passed)
	s = newStage(t, func(s *stage) { s.config.Clusters.ClientAuthorization = cluster.RejectAuthorization })
	s.expect(own, passed, "400 Status BadRequest")
	s.expect(get("/api/v1/pods"), passed, passed)
}

func testImpersonation(t *testing.T) {
	s := newStage(t)
	original, ours := s.both(get("/", "Impersonate-User: ann", "Impersonate-Group: a", "Impersonate-Group: b", "Impersonate-Extra-Scopes: x"))
	for _, name := range []string{"Impersonate-User", "Impersonate-Group", "Impersonate-Extra-Scopes", "Authorization"} {
		theirs, got := strings.Join(original.Header[name], ","), strings.Join(ours.Header[name], ",")
		if theirs != got || got == "" {
			t.Errorf("%s: kubectl proxy sends %q, ours %q", name, theirs, got)
		}
	}
}

func testExecPlugin(t *testing.T) {
	file := filepath.Join(t.TempDir(), "credential")
	gives := func(token string) {
		credential := `{"kind": "ExecCredential", "apiVersion": "client.authentication.k8s.io/v1", "status": {"token": "` + token + `"}}`
		if err := os.WriteFile(file, []byte(credential), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	gives("old")
	s := newStage(t, func(s *stage) {
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		s.file.AuthInfos["main"] = &clientcmdapi.AuthInfo{Exec: &clientcmdapi.ExecConfig{
			APIVersion: "client.authentication.k8s.io/v1", Command: self, InteractiveMode: clientcmdapi.NeverExecInteractiveMode,
			Env: []clientcmdapi.ExecEnvVar{{Name: role, Value: asPlugin}, {Name: roleData, Value: file}},
		}}
	})
	s.api.accept("old")
	s.expect(get("/api/v1/pods"), passed, passed)
	gives("new")
	s.api.accept("new")
	// Ours first: both ask the same plugin of client-go, which has the new token once one of them has been refused.
	if got := s.ours.send(t, post("/api/v1/pods")).String(); got != "200 POST /api/v1/pods" {
		t.Errorf("got %q after the credential has changed", got)
	}
	gives("newer")
	s.api.accept("newer")
	if got := s.original.send(t, get("/api/v1/pods")).String(); got != unauthorized {
		t.Errorf("kubectl proxy answers %q, want %q first: has it changed?", got, unauthorized)
	}
	s.expect(get("/api/v1/pods"), passed, passed)
}

func testKubeconfigEdited(t *testing.T) {
	s := newStage(t)
	s.api.accept("secret")
	s.expect(get("/api/v1/pods"), passed, passed)
	s.api.accept("changed")
	s.add("main", s.api, "changed")
	s.save()
	s.expect(get("/api/v1/pods"), unauthorized, passed)
	other := newAPIServer(t)
	other.answers(func(w http.ResponseWriter, _ *http.Request) { w.Write([]byte("the other")) })
	s.add("other", other, "")
	s.file.CurrentContext = "other"
	s.save()
	eventually(t, "the new current context", func() bool { return s.ours.send(t, get("/")).String() == "200 the other" })
	s.expect(get("/api/v1/pods"), unauthorized, "200 the other")
}

func testHeaders(t *testing.T) {
	s := newStage(t)
	original, ours := s.both(get("/", "Host: localhost:8001", "User-Agent: tester", "X-Forwarded-For: 192.0.2.7", "Connection: X-Hop", "X-Hop: 1", "Accept: a, b"))
	for name, of := range map[string]func(*http.Request) string{
		"Host": func(r *http.Request) string { return r.Host },
		"all":  func(r *http.Request) string { return headerText(r.Header) },
	} {
		if of(original) != of(ours) {
			t.Errorf("%s: kubectl proxy sends\n%s\nours\n%s", name, of(original), of(ours))
		}
	}
	if got := s.api.Listener.Addr().String(); ours.Host != got {
		t.Errorf("Host is %q, want the API server's %q", ours.Host, got)
	}
	if got := ours.Header.Get("X-Forwarded-For"); got != "192.0.2.7, 127.0.0.1" {
		t.Errorf("X-Forwarded-For is %q", got)
	}
	if original, ours = s.both(get("/")); original.Header.Get("X-Forwarded-For") != "127.0.0.1" || ours.Header.Get("X-Forwarded-For") != "127.0.0.1" {
		t.Errorf("X-Forwarded-For: kubectl proxy sends %v, ours %v", original.Header, ours.Header)
	}
}

func headerText(h http.Header) string {
	var b strings.Builder
	_ = h.Write(&b) // sorted
	return b.String()
}
