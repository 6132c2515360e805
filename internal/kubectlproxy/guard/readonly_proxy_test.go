package guard_test

import (
	"net/http/httptest"
	"testing"

	"varco.dev/internal/kubectlproxy/guard"
)

func TestThroughProxy(t *testing.T) {
	for path, want := range map[string]bool{
		"/api/v1/namespaces/default/services/web:80/proxy":     true,
		"/api/v1/namespaces/default/services/web:80/proxy/":    true,
		"/api/v1/namespaces/default/pods/web/proxy/a/b":        true,
		"/api/v1/nodes/n/proxy/logs/":                          true,
		"/api/v1/nodes/n%2Fproxy%2Flogs":                       true,
		"/api/v1/namespaces/proxy/configmaps":                  false,
		"/api/v1/namespaces/default/configmaps/proxy":          false,
		"/api/v1/namespaces/default/pods/proxy/log":            false,
		"/apis/apps/v1/namespaces/default/deployments/a/scale": false,
	} {
		if got := guard.ThroughProxy(httptest.NewRequest("POST", "/", nil), path); got != want {
			t.Errorf("%s: got %v", path, got)
		}
	}
}
