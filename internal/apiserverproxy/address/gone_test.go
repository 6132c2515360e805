package address_test

import (
	"testing"

	"varco.dev/internal/apiserverproxy/address"
)

func TestGone(t *testing.T) {
	for old, want := range map[string]string{
		"/api/v1/proxy/nodes/n1":                                   "/api/v1/nodes/n1/proxy",
		"/api/v1/proxy/nodes/n1/":                                  "/api/v1/nodes/n1/proxy/",
		"/api/v1/proxy/nodes/n1:10250/logs/kubelet.log":            "/api/v1/nodes/n1:10250/proxy/logs/kubelet.log",
		"/api/v1/proxy/namespaces/ns/pods/web:80/a//b%2Fc":         "/api/v1/namespaces/ns/pods/web:80/proxy/a//b%2Fc",
		"/api/v1/proxy/namespaces/kube-system/services/dashboard/": "/api/v1/namespaces/kube-system/services/dashboard/proxy/",
		"/api/v1/proxy/namespaces/ns/services/https:web:443":       "/api/v1/namespaces/ns/services/https:web:443/proxy",
		"/api/v1/proxy/namespaces/ns/services/https%3Aweb%3A443/x": "/api/v1/namespaces/ns/services/https%3Aweb%3A443/proxy/x",
		"/api/v1/proxy/namespaces/ns/pods/web/proxy":               "/api/v1/namespaces/ns/pods/web/proxy/proxy",
		"/api/v1/redirect/nodes/n1":                                "/api/v1/nodes/n1/proxy",
		"/api/v1/redirect/namespaces/ns/services/web":              "/api/v1/namespaces/ns/services/web/proxy",
		"/api/v1/redirect/namespaces/ns/pods/web/x":                "/api/v1/namespaces/ns/pods/web/proxy/x",
	} {
		if got, ok := address.Gone(old); !ok || got != want {
			t.Errorf("%s: %q, %t, want %q", old, got, ok, want)
		}
	}
}

func TestGoneOthers(t *testing.T) {
	for _, path := range []string{
		"", "/", "/api/v1", "/api/v1/", "/api/v1/proxy", "/api/v1/proxy/", "/api/v1/proxy/nodes", "/api/v1/proxy/nodes/",
		"/api/v1/nodes/n1/proxy", "/api/v1/namespaces/ns/services/web/proxy/x", "/api/v1/watch/nodes/n1",
		"/api/v1/proxy/namespaces/ns", "/api/v1/proxy/namespaces/ns/services", "/api/v1/proxy/namespaces/ns/services/",
		"/api/v1/proxy/namespaces/ns/endpoints/web", "/api/v1/proxy/namespaces/ns/nodes/n1", "/api/v1/proxy/pods/web",
		"/api/v1/proxy/namespaces//services/web", "/api/v1/proxy/namespaces/../services/web/", "/api/v1/proxy/nodes/..",
		"/api/v1/proxy/nodes/a%2Fb", "/api/v1/proxy/nodes/a:b:c:d", "/api/v1/prox%79/nodes/n1", "/api/v1beta3/proxy/nodes/n1",
		"/apis/proxy.varco.dev/v1/proxy/nodes/n1", "//api/v1/proxy/nodes/n1", "/api/v1//proxy/nodes/n1",
	} {
		if got, ok := address.Gone(path); ok {
			t.Errorf("%s: %q", path, got)
		}
	}
}
