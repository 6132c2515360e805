package server_test

import (
	"crypto/x509/pkix"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	"k8s.io/apiserver/pkg/endpoints/request"
)

func bearer(token string) http.Header { return http.Header{"Authorization": {"Bearer " + token}} }

// TestProxyPathsAreJudgedHere looks at answers, at what the API server is asked, and at what the proxy's handler gets.
func TestProxyPathsAreJudgedHere(t *testing.T) {
	s := newStage(t, func(s *stage, _ *frontConfig) { s.proxied = make(chan *http.Request, 64) })
	s.api.tokens["alice"] = authnv1.UserInfo{Username: "alice", UID: "7", Groups: []string{"devs"}, Extra: map[string]authnv1.ExtraValue{"k": {"v"}}}
	s.api.tokens["carol"] = authnv1.UserInfo{Username: "carol"}
	s.api.allowed = func(r authzv1.SubjectAccessReviewSpec) bool { return r.User == "alice" || r.User == "bob" }
	bob := s.clients.pair(t, pkix.Name{CommonName: "bob", Organization: []string{"x"}})
	for version := 1; version <= 2; version++ {
		anonymous, identified := s.client(t, nil, version), s.client(t, bob, version)
		for _, c := range []struct {
			client *http.Client
			header http.Header
			code   int
			body   string
			user   string
		}{
			{anonymous, bearer("alice"), 200, "proxied", "alice"},
			{identified, nil, 200, "proxied", "bob"},
			{identified, bearer("alice"), 200, "proxied", "bob"}, // as upstream: the certificate counts
			{anonymous, bearer("carol"), 403, `"message":"pods \"https:web:443\" is forbidden: User \"carol\" cannot get resource \"pods/proxy\" in API group \"\" in the namespace \"a\""`, ""},
			{anonymous, nil, 403, `User \"system:anonymous\" cannot get resource`, ""},
			{anonymous, bearer("wrong"), 401, `"reason":"Unauthorized"`, ""},
		} {
			header := c.header.Clone()
			if header == nil {
				header = http.Header{}
			}
			header["X-Remote-User"], header["X_Remote_Group"], header["X-Other"] = []string{"mallory"}, []string{"system:masters"}, []string{"1"}
			resp, body := do(t, c.client, http.MethodGet, s.url+podProxy, header, nil)
			if resp.StatusCode != c.code || !strings.Contains(body, c.body) {
				t.Errorf("HTTP/%d %v: answer %d %s, want %d %s", version, c.header, resp.StatusCode, body, c.code, c.body)
			}
			if c.user == "" || t.Failed() {
				continue
			}
			r := <-s.proxied
			who, _ := request.UserFrom(r.Context())
			info, _ := request.RequestInfoFrom(r.Context())
			if who.GetName() != c.user || info.Name != "https:web:443" || info.Namespace != "a" || info.Subresource != "proxy" {
				t.Errorf("the handler got user %+v, info %+v", who, info)
			}
			if diff := cmp.Diff(http.Header{}, identityOf(r.Header)); diff != "" || r.Header.Get("X-Other") != "1" {
				t.Errorf("the handler got the header %v", r.Header)
			}
		}
	}
	if got := s.api.take(); len(got) > 0 {
		t.Errorf("the API server was asked to serve %+v", got)
	}
	checkReviews(t, s.api)
}

// checkReviews wants one review for each question, whatever the number of requests.
func checkReviews(t *testing.T, a *api) {
	t.Helper()
	resource := &authzv1.ResourceAttributes{Namespace: "a", Verb: "get", Version: "v1", Resource: "pods", Subresource: "proxy", Name: "https:web:443"}
	credential := func(r authzv1.SubjectAccessReviewSpec) bool { return r.User == "bob" } // with the certificate's digest
	want := []authzv1.SubjectAccessReviewSpec{
		{ResourceAttributes: resource, User: "alice", UID: "7", Groups: []string{"devs", "system:authenticated"}, Extra: map[string]authzv1.ExtraValue{"k": {"v"}}},
		{ResourceAttributes: resource, User: "carol", Groups: []string{"system:authenticated"}},
		{ResourceAttributes: resource, User: "system:anonymous", Groups: []string{"system:unauthenticated"}},
	}
	var got []authzv1.SubjectAccessReviewSpec
	for _, r := range a.takeReviews() {
		if !credential(r) {
			got = append(got, r)
		} else if diff := cmp.Diff([]string{"x", "system:authenticated"}, r.Groups); diff != "" || len(r.Extra) != 1 {
			t.Errorf("bob's review: %+v", r)
		}
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("reviews (-want +got):\n%s", diff)
	}
	if a.asked != 3 { // one of them for a wrong token each time
		t.Logf("TokenReviews: %d", a.asked)
	}
}

func TestGonePathsNeedNoPermission(t *testing.T) {
	s := newStage(t, nil)
	s.api.allowed = func(authzv1.SubjectAccessReviewSpec) bool { return false }
	s.api.tokens["alice"] = authnv1.UserInfo{Username: "alice"}
	c := s.client(t, nil, 1)
	for token, code := range map[string]int{"alice": http.StatusGone, "wrong": http.StatusUnauthorized} {
		if resp, body := do(t, c, http.MethodGet, s.url+"/api/v1/proxy/nodes/a", bearer(token), nil); resp.StatusCode != code {
			t.Errorf("%s: answer %d %s, want %d", token, resp.StatusCode, body, code)
		}
	}
	if got := s.api.takeReviews(); len(got) > 0 {
		t.Errorf("reviews: %+v", got)
	}
}

// TestOnlyTheSubresourceIsServed sends paths that the stage's IsProxy takes for the proxy's, though they are authorized as
// something else.
func TestOnlyTheSubresourceIsServed(t *testing.T) {
	s := newStage(t, nil)
	for _, path := range []string{
		"/healthz/proxy", "/api/v1/namespaces/a/pods/proxy", "/api/v1/namespaces/a/pods/b/log/proxy", "/apis/apps/v1/namespaces/a/pods/b/proxy",
		"/api/v1/namespaces/a%2Fpods/b/proxy/c", "/api/v1%2Fnamespaces/a/pods/b/proxy", "/api/v1/namespaces/a/pods/b%2Fproxy/x", "/api/v1/namespaces/a/pods/b%2Fproxy/proxy", "//api/v1/namespaces/a/pods/b/proxy",
		"/api/v1/namespaces/a/pods//proxy", "/api/v1/namespaces//pods/b/proxy", "/proxy", "/api/v1/watch/namespaces/a/pods/b/c/proxy",
	} {
		resp, body := do(t, s.client(t, nil, 1), http.MethodGet, s.url+path, nil, nil)
		if resp.StatusCode == http.StatusOK {
			t.Errorf("%s: answer %d %s", path, resp.StatusCode, body)
		}
	}
	for _, path := range []string{podProxy, "/api/v1/namespaces/a/pods/%62/proxy", "/api/v1/nodes/one:10250/proxy", "/api/v1/nodes/https%3Aone:/proxy//..%2F", "/api/v1/namespaces/a/services/b/proxy/%2F"} {
		if resp, body := do(t, s.client(t, nil, 1), http.MethodGet, s.url+path, nil, nil); resp.StatusCode != http.StatusOK {
			t.Errorf("%s: answer %d %s", path, resp.StatusCode, body)
		}
	}
}

// TestNextGetsTheClientsRequest hands a request on that was for the proxy at first.
func TestNextGetsTheClientsRequest(t *testing.T) {
	s := newStage(t, nil)
	s.api.tokens["alice"] = authnv1.UserInfo{Username: "alice"}
	bob := s.clients.pair(t, pkix.Name{CommonName: "bob"})
	header := bearer("alice")
	header["Impersonate-User"] = []string{"root"}
	resp, _ := do(t, s.client(t, nil, 1), http.MethodGet, s.url+podProxy+"?upstream", header, nil)
	got := s.api.one(t)
	want := http.Header{"Authorization": {"Bearer alice"}, "Impersonate-User": {"root"}}
	if diff := cmp.Diff(want, identityOf(got.Header)); diff != "" || got.Path != podProxy+"?upstream" {
		t.Errorf("%s (-want +got):\n%s", got.Path, diff)
	}
	if resp.Header["Cache-Control"] != nil || resp.Header.Get("X-From") != "api" {
		t.Errorf("answer: %v", resp.Header)
	}
	do(t, s.client(t, bob, 2), http.MethodGet, s.url+podProxy+"?upstream", nil, nil)
	if got := s.api.one(t); got.Peer != "front-proxy-client" || got.Header.Get("X-Remote-User") != "bob" {
		t.Errorf("with a certificate: %+v", got)
	}
}

// TestTrustedHop has a front proxy, and somebody who is none, say where a request comes from.
func TestTrustedHop(t *testing.T) {
	s := newStage(t, func(s *stage, _ *frontConfig) { s.proxied = make(chan *http.Request, 64) })
	header := http.Header{"X-Remote-User": {"carol"}, "X-Forwarded-For": {"6.6.6.6, 10.1.2.3"}, "X-Forwarded-Host": {"kubernetes.example"}, "X-Forwarded-Uri": {"/x"}, "X-Forwarded-Proto": {"https"}}
	type hop struct{ Remote, Host, For, FwdHost string }
	for name, c := range map[string]struct {
		client *http.Client
		header http.Header
		want   hop
	}{
		"front proxy":           {s.client(t, s.proxies.pair(t, pkix.Name{CommonName: "front-proxy-client"}), 1), header, hop{"10.1.2.3:0", "kubernetes.example", "6.6.6.6", ""}},
		"front proxy, one hop":  {s.client(t, s.proxies.pair(t, pkix.Name{CommonName: "front-proxy-client"}), 2), http.Header{"X-Remote-User": {"carol"}, "X-Forwarded-For": {"fd00::1"}}, hop{"[fd00::1]:0", s.url[len("https://"):], "", ""}},
		"front proxy, nonsense": {s.client(t, s.proxies.pair(t, pkix.Name{CommonName: "front-proxy-client"}), 2), http.Header{"X-Remote-User": {"carol"}, "X-Forwarded-For": {"1.1.1.1, unknown"}}, hop{"127.0.0.1", s.url[len("https://"):], "1.1.1.1, unknown", ""}},
		"client":                {s.client(t, s.clients.pair(t, pkix.Name{CommonName: "bob"}), 1), header, hop{"127.0.0.1", s.url[len("https://"):], "6.6.6.6, 10.1.2.3", "kubernetes.example"}},
	} {
		do(t, c.client, http.MethodGet, s.url+podProxy, c.header, nil)
		r := <-s.proxied
		got := hop{r.RemoteAddr, r.Host, strings.Join(r.Header["X-Forwarded-For"], "|"), r.Header.Get("X-Forwarded-Host")}
		if c.want.Remote == "127.0.0.1" {
			got.Remote, _, _ = strings.Cut(got.Remote, ":")
		}
		if diff := cmp.Diff(c.want, got); diff != "" {
			t.Errorf("%s (-want +got):\n%s", name, diff)
		}
	}
}

func TestAnonymousAuthCanBeSwitchedOff(t *testing.T) {
	s := newStage(t, func(s *stage, _ *frontConfig) { s.options.Authentication.Anonymous.Enabled = false })
	if resp, body := do(t, s.client(t, nil, 1), http.MethodGet, s.url+podProxy, nil, nil); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("answer %d %s", resp.StatusCode, body)
	}
}

// TestOwnAccountMayNotAsk takes the permission for reviews away.
func TestOwnAccountMayNotAsk(t *testing.T) {
	s := newStage(t, nil)
	s.api.tokens["alice"] = authnv1.UserInfo{Username: "alice"}
	s.api.mu.Lock()
	s.api.forbid = true
	s.api.mu.Unlock()
	bob := s.clients.pair(t, pkix.Name{CommonName: "bob"})
	if resp, body := do(t, s.client(t, nil, 1), http.MethodGet, s.url+podProxy, bearer("alice"), nil); resp.StatusCode != http.StatusUnauthorized {
		t.Errorf("token: answer %d %s", resp.StatusCode, body)
	}
	if err := s.Ready(); err == nil || !strings.Contains(err.Error(), "tokenreviews: bind the ClusterRole system:auth-delegator") {
		t.Errorf("ready: %v", err)
	}
	if resp, body := do(t, s.client(t, bob, 1), http.MethodGet, s.url+podProxy, nil, nil); resp.StatusCode != http.StatusInternalServerError || !strings.Contains(body, "subjectaccessreviews") {
		t.Errorf("certificate: answer %d %s", resp.StatusCode, body)
	}
	if !strings.Contains(s.log.String(), "system:auth-delegator") {
		t.Errorf("the log does not say what is missing: %s", s.log)
	}
	s.api.mu.Lock()
	s.api.forbid = false
	s.api.mu.Unlock()
	for _, token := range []string{"alice", ""} {
		do(t, s.client(t, bob, 1), http.MethodGet, s.url+podProxy, bearer(token), nil)
		do(t, s.client(t, nil, 1), http.MethodGet, s.url+podProxy, bearer("another"), nil)
	}
	if err := s.Ready(); err != nil {
		t.Errorf("ready, after the permission is back: %v", err)
	}
}

func TestPathOfTheServersURL(t *testing.T) {
	s := newStage(t, func(_ *stage, c *frontConfig) {
		c.Kubeconfig.Host += "/k8s/clusters/c%2F1"
		c.Options.Authentication.SkipInClusterLookup = true
	})
	do(t, s.client(t, nil, 1), http.MethodGet, s.url+"/api/v1/a%2Fb//c/../d?x=%2F", nil, nil)
	if got := s.api.one(t); got.Path != "/k8s/clusters/c%2F1/api/v1/a%2Fb//c/../d?x=%2F" {
		t.Errorf("path %s", got.Path)
	}
}

func TestHandlerServesElsewhere(t *testing.T) {
	s := newStage(t, nil)
	other := httptest.NewServer(s.Handler())
	defer other.Close()
	if resp, body := do(t, other.Client(), http.MethodGet, other.URL+"/version", nil, nil); resp.StatusCode != http.StatusOK || resp.Header.Get("X-From") != "api" {
		t.Errorf("answer %d %s", resp.StatusCode, body)
	}
}
