package cluster_test

import (
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"varco.dev/internal/kubectlproxy/cluster"
)

// idToken returns an OIDC token that nobody signed; client-go reads the time in it.
func idToken(name string, expires time.Time) string {
	part := func(v string) string { return base64.RawURLEncoding.EncodeToString([]byte(v)) }
	return part(`{"alg":"none"}`) + "." + part(fmt.Sprintf(`{"sub":%q,"exp":%d}`, name, expires.Unix())) + ".x"
}

// issuer is an OIDC provider that gives one token for each refresh token.
func issuer(t *testing.T, tokens map[string]string) string {
	var s *httptest.Server
	s = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		if strings.HasSuffix(r.URL.Path, "/.well-known/openid-configuration") {
			json.NewEncoder(w).Encode(map[string]string{"token_endpoint": s.URL + "/token"})
			return
		}
		id := tokens[r.FormValue("refresh_token")]
		json.NewEncoder(w).Encode(map[string]any{"access_token": "a", "token_type": "Bearer", "id_token": id})
	}))
	t.Cleanup(s.Close)
	return s.URL
}

func oidcUser(issuer, id, refresh string) *clientcmdapi.AuthInfo {
	return &clientcmdapi.AuthInfo{AuthProvider: &clientcmdapi.AuthProviderConfig{Name: "oidc", Config: map[string]string{
		"idp-issuer-url": issuer, "client-id": "kubernetes", "id-token": id, "refresh-token": refresh,
	}}}
}

// TestOIDC refreshes an expired token, which client-go writes to the kubeconfig; then a user logs in again, and the
// token in the kubeconfig is another one.
func TestOIDC(t *testing.T) {
	later := time.Now().Add(time.Hour)
	fresh, login := idToken("fresh", later), idToken("login", later)
	a, url := newAPI(t), issuer(t, map[string]string{"r1": fresh})
	s := newStage(t, a, oidcUser(url, idToken("old", time.Now().Add(-time.Hour)), "r1"))
	a.accept(fresh)
	if got := answer(t, s.get(""), get("/x")); got[:3] != "200" {
		t.Errorf("after the refresh: %s", got)
	}
	if data, err := os.ReadFile(s.path); err != nil || !strings.Contains(string(data), fresh) {
		t.Errorf("the token is not in the kubeconfig: %v", err)
	}
	a.accept(login)
	s.file.AuthInfos["main"] = oidcUser(url, login, "r2")
	s.save()
	if got := answer(t, s.get(""), get("/x")); got[:3] != "200" {
		t.Errorf("after the login: %s", got)
	}
}

// TestOIDCUsers has two users of one server and one issuer, whom client-go would take for one.
func TestOIDCUsers(t *testing.T) {
	later := time.Now().Add(time.Hour)
	alice, bob := idToken("alice", later), idToken("bob", later)
	a := newAPI(t)
	url := issuer(t, nil)
	s := newStage(t, a, oidcUser(url, alice, "ra"), func(s *stage) {
		s.config.Contexts = []string{cluster.AllContexts}
		s.add("bob", a, oidcUser(url, bob, "rb"))
	})
	for name, want := range map[string]string{"main": alice, "bob": bob} {
		answer(t, s.get(name), get("/x"))
		if r, _ := a.last(); bearer(r) != want {
			t.Errorf("%s has the token %s, want %s", name, bearer(r), want)
		}
	}
}
