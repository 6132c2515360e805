package node_test

import (
	"context"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"varco.dev/lab/internal/node"
)

// fakeRights allow each user the verb and subresource of its name, as in "get metrics".
type fakeRights struct{ authorizer.Authorizer }

func (fakeRights) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	if a.GetResource() == "nodes" && a.GetName() == "node-1" && a.GetUser().GetName() == a.GetVerb()+" "+a.GetSubresource() {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

func TestGate(t *testing.T) {
	who := authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		name := r.Header.Get("User")
		return &authenticator.Response{User: &user.DefaultInfo{Name: name}}, name != "", nil
	})
	g := node.NewGate("node-1", who, fakeRights{})
	h := g.Protect(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "in") }))
	tests := []struct {
		method, path, user string
		want               int
	}{
		{"GET", "/metrics", "", http.StatusUnauthorized},
		{"GET", "/metrics", "get metrics", http.StatusOK},
		{"GET", "/metrics", "get proxy", http.StatusForbidden},
		{"GET", "/stats/summary", "get stats", http.StatusOK},
		{"GET", "/logs/x", "get log", http.StatusOK},
		{"GET", "/pods", "get pods", http.StatusOK},
		{"GET", "/pods", "get proxy", http.StatusOK},
		{"GET", "/healthz", "get healthz", http.StatusOK},
		{"GET", "/healthz", "", http.StatusUnauthorized},
		{"GET", "/containerLogs/a/b/c", "get proxy", http.StatusOK},
		{"GET", "/containerLogs/a/b/c", "get metrics", http.StatusForbidden},
		{"POST", "/exec/a/b/c", "get proxy", http.StatusForbidden},
		{"POST", "/exec/a/b/c", "create proxy", http.StatusOK},
	}
	for _, tt := range tests {
		t.Run(tt.method+" "+tt.path+" as "+tt.user, func(t *testing.T) {
			r := httptest.NewRequest(tt.method, tt.path, nil)
			r.Header.Set("User", tt.user)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("got %d, want %d", w.Code, tt.want)
			}
		})
	}
}
