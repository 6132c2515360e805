package node_test

import (
	"log/slog"
	"net/http"
	"net/http/httptest"
	"testing"

	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"varco.dev/lab/internal/node"
)

func TestRoutes(t *testing.T) {
	who := authenticator.RequestFunc(func(r *http.Request) (*authenticator.Response, bool, error) {
		name := r.Header.Get("User")
		return &authenticator.Response{User: &user.DefaultInfo{Name: name}}, name != "", nil
	})
	agent := node.New(node.Config{Name: "node-1", Log: slog.New(slog.NewTextHandler(t.Output(), nil))})
	h := node.Routes(agent, node.NewGate("node-1", who, fakeRights{}))
	tests := []struct {
		path, user string
		want       int
	}{
		{"/healthz", "", http.StatusUnauthorized},
		{"/healthz", "get healthz", http.StatusOK},
		{"/healthz", "get metrics", http.StatusForbidden},
		{"/metrics", "", http.StatusUnauthorized},
		{"/metrics", "get metrics", http.StatusOK},
		{"/pods", "get pods", http.StatusOK},
		{"/pods", "get metrics", http.StatusForbidden},
		{"/containerLogs/default/web/main", "", http.StatusUnauthorized},
		{"/containerLogs/default/web/main", "get proxy", http.StatusNotFound},
		{"/exec/default/web/main?command=x&output=1", "create proxy", http.StatusForbidden},
		{"/exec/default/web/main?command=x&output=1", "get proxy", http.StatusNotFound},
		{"/attach/default/web/main?output=1", "create proxy", http.StatusForbidden},
		{"/attach/default/web/main?output=1", "get proxy", http.StatusNotFound},
		{"/attach/default/web/main", "get proxy", http.StatusBadRequest},
		{"/run/default/web/main", "get proxy", http.StatusNotImplemented},
	}
	for _, tt := range tests {
		t.Run(tt.path+" as "+tt.user, func(t *testing.T) {
			r := httptest.NewRequest(http.MethodGet, tt.path, nil)
			r.Header.Set("User", tt.user)
			w := httptest.NewRecorder()
			h.ServeHTTP(w, r)
			if w.Code != tt.want {
				t.Errorf("got %d, want %d: %s", w.Code, tt.want, w.Body)
			}
		})
	}
}
