package cluster_test

import (
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"varco.dev/internal/kubectlproxy/cluster"
)

// TestClientAuthorization sends an Authorization header of the client's own.
func TestClientAuthorization(t *testing.T) {
	tests := []struct {
		mode, ours, want string
		warned           bool
		refused          bool
	}{
		{"", "ours", "ours", true, false},
		{"", "", "theirs", false, false}, // nothing is replaced
		{cluster.IgnoreAuthorization, "ours", "ours", true, false},
		{cluster.ForwardAuthorization, "ours", "theirs", false, false},
		{cluster.RejectAuthorization, "ours", "", false, true},
	}
	for _, tt := range tests {
		t.Run(tt.mode+" "+tt.ours, func(t *testing.T) {
			a := newAPI(t)
			s := newStage(t, a, &clientcmdapi.AuthInfo{Token: tt.ours}, func(s *stage) {
				s.config.ClientAuthorization = tt.mode
				s.file.Clusters["main"].Server += "/prefix"
			})
			for range 3 {
				r := get("/x")
				r.Header.Set("Authorization", "Bearer theirs")
				resp, err := ask(t, s.get(""), r, false)
				if tt.refused {
					if !apierrors.IsBadRequest(err) {
						t.Errorf("got %v, want a status 400", err)
					}
					continue
				}
				if err != nil {
					t.Fatal(err)
				}
				resp.Body.Close()
				if warned := strings.HasPrefix(resp.Header.Get("Warning"), "299 "); warned != tt.warned {
					t.Errorf("Warning header %q", resp.Header.Get("Warning"))
				}
				if r, _ := a.last(); bearer(r) != tt.want || r.URL.Path != "/prefix/x" {
					t.Errorf("the API server got %s with the token %q, want %q", r.URL.Path, bearer(r), tt.want)
				}
			}
			if n, want := strings.Count(s.log.String(), "dropped"), map[bool]int{true: 1}[tt.warned]; n != want {
				t.Errorf("%d lines in the log, want %d:\n%s", n, want, s.log)
			}
			if got := answer(t, s.get(""), get("/x")); got != "200 HTTP/1.1 GET /prefix/x" {
				t.Errorf("without the header: %s", got)
			}
		})
	}
	if cluster.CheckAuthorization("forward") != nil || cluster.CheckAuthorization("") == nil {
		t.Error("CheckAuthorization is wrong")
	}
}

// TestForwardedIsNotReplayed has the client's own credential refused, which nothing of ours can take the place of.
func TestForwardedIsNotReplayed(t *testing.T) {
	a, p := newAPI(t), newPlugin(t)
	p.givesToken("ours")
	a.accept("ours")
	s := newStage(t, a, p.user(), func(s *stage) { s.config.ClientAuthorization = cluster.ForwardAuthorization })
	r := get("/x")
	r.Header.Set("Authorization", "Bearer theirs")
	if got := answer(t, s.get(""), r); got[:3] != "401" || len(a.requests()) != 1 || p.runs() != 0 {
		t.Errorf("got %s after %d requests and %d runs of the plugin", got, len(a.requests()), p.runs())
	}
}

// TestImpersonation lets the client say who it wants to be. As with kubectl proxy, a user that it names takes the place
// of all of the kubeconfig's.
func TestImpersonation(t *testing.T) {
	a := newAPI(t)
	as := &clientcmdapi.AuthInfo{Token: "t", Impersonate: "jane", ImpersonateGroups: []string{"dev", "ops"}, ImpersonateUID: "7"}
	tests := []struct {
		name string
		user *clientcmdapi.AuthInfo
		sent http.Header
		want http.Header
	}{
		{"client", &clientcmdapi.AuthInfo{Token: "t"}, http.Header{"Impersonate-User": {"joe"}, "Impersonate-Group": {"a", "b"}},
			http.Header{"Impersonate-User": {"joe"}, "Impersonate-Group": {"a", "b"}}},
		{"kubeconfig", as, nil,
			http.Header{"Impersonate-User": {"jane"}, "Impersonate-Group": {"dev", "ops"}, "Impersonate-Uid": {"7"}}},
		{"both", as, http.Header{"Impersonate-User": {"joe"}}, http.Header{"Impersonate-User": {"joe"}}},
	}
	for _, tt := range tests {
		s := newStage(t, a, tt.user)
		r := get("/x")
		for k, v := range tt.sent {
			r.Header[k] = v
		}
		answer(t, s.get(""), r)
		got := http.Header{}
		seen, _ := a.last()
		for k, v := range seen.Header {
			if strings.HasPrefix(k, "Impersonate-") {
				got[k] = v
			}
		}
		if d := cmp.Diff(tt.want, got); d != "" {
			t.Errorf("%s: (-want +got)\n%s", tt.name, d)
		}
	}
}

// TestUserAgent passes the client's name on, and has one of its own for clients without.
func TestUserAgent(t *testing.T) {
	a := newAPI(t)
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "t"})
	r := get("/x")
	r.Header.Set("User-Agent", "theirs/1")
	answer(t, s.get(""), r)
	if got, _ := a.last(); got.UserAgent() != "theirs/1" {
		t.Errorf("User-Agent %q", got.UserAgent())
	}
	answer(t, s.get(""), get("/x"))
	if got, _ := a.last(); got.UserAgent() != s.get("").Config.UserAgent || got.UserAgent() == "" {
		t.Errorf("User-Agent %q, want %q", got.UserAgent(), s.get("").Config.UserAgent)
	}
}
