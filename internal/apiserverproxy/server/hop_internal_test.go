package server

import (
	"net/http"
	"testing"

	"varco.dev/internal/httpproxy/vouch"
)

func TestLastForwarded(t *testing.T) {
	for _, c := range []struct {
		lines          []string
		client, before string
		ok             bool
	}{
		{nil, "", "", false},
		{[]string{"1.2.3.4"}, "1.2.3.4", "", true},
		{[]string{"a, 1.2.3.4"}, "1.2.3.4", "a", true},
		{[]string{"a,b", "c", "::1"}, "::1", "a,b, c", true},
		{[]string{"a", "1.2.3.4:80"}, "", "a", false},
		{[]string{"1.2.3.4,"}, "", "1.2.3.4", false},
		{[]string{"", "1.2.3.4"}, "1.2.3.4", "", true},
	} {
		client, before, ok := lastForwarded(c.lines)
		if ok != c.ok || ok && (client.String() != c.client || before != c.before) {
			t.Errorf("%q: %v %q %v", c.lines, client, before, ok)
		}
	}
}

// FuzzReadsAs wants that a path which was let through is the one that was allowed, segment by segment.
func FuzzReadsAs(f *testing.F) {
	for _, path := range []string{
		"/api/v1/namespaces/a/pods/b/proxy", "/api/v1/namespaces/a%2Fpods/b/proxy", "/api/v1/nodes/n:1/proxy/%2F", "/apis/proxy.varco.dev/v1/namespaces/a/services/https:b:/proxy/x",
		"//api/v1/nodes/n/proxy", "/api/v1/namespaces/a/proxy", "/api/v1/watch/nodes/n/proxy", "/api/v1/nodes/%2e%2e/proxy",
	} {
		f.Add(path)
	}
	f.Fuzz(func(t *testing.T, path string) {
		r, err := http.NewRequest(http.MethodGet, "http://a"+path, nil)
		if err != nil || r.URL.Host != "a" {
			return
		}
		info, err := vouch.NewInfos().NewRequestInfo(r)
		if err != nil || !info.IsResourceRequest || info.Subresource != "proxy" || !readsAs(r.URL.EscapedPath(), info) {
			return
		}
		plain := "/" + info.APIPrefix + "/" + info.APIVersion + "/"
		if info.APIGroup != "" {
			plain = "/" + info.APIPrefix + "/" + info.APIGroup + "/" + info.APIVersion + "/"
		}
		if info.Namespace != "" {
			plain += "namespaces/" + info.Namespace + "/"
		}
		plain += info.Resource + "/" + info.Name + "/proxy"
		if got := r.URL.Path; len(got) < len(plain) || got[:len(plain)] != plain {
			t.Errorf("%q is let through as %q, which begins otherwise: %+v", path, got, info)
		}
	})
}
