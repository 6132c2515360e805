package server_test

import (
	"crypto/x509/pkix"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authzv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/rest"
	"k8s.io/kube-openapi/pkg/handler3"
	"k8s.io/kube-openapi/pkg/spec3"
	"k8s.io/kube-openapi/pkg/validation/spec"

	"varco.dev/internal/apiserverproxy/server"
)

// newAggregated starts an Aggregated; the stage has no Front.
func newAggregated(t testing.TB) (*stage, *server.Aggregated) {
	t.Helper()
	s := &stage{clients: newAuthority(t, "clients"), proxies: newAuthority(t, "proxies"), serving: newAuthority(t, "serving"), log: &records{}, proxied: make(chan *http.Request, 64)}
	s.api = newAPI(t, s.clients, s.proxies)
	o := server.NewOptions()
	o.DrainTimeout = time.Second
	dir := t.TempDir()
	cert, key := s.serving.sign(t, pkix.Name{CommonName: "aggregated"}, time.Hour)
	o.Serving.ServerCert.CertKey.CertFile, o.Serving.ServerCert.CertKey.KeyFile = write(t, dir, "tls.crt", cert), write(t, dir, "tls.key", key)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	o.Serving.Listener, s.url = listener, "https://"+listener.Addr().String()
	a, err := server.NewAggregated(server.AggregatedConfig{
		Options: o, Kubeconfig: s.api.kubeconfig(), IsProxy: isOwnProxy, Log: slog.New(s.log),
		Proxy: func(next http.Handler, _ authorizer.Authorizer) http.Handler { return s.proxy(next) },
	})
	if err != nil {
		t.Fatal(err)
	}
	s.stop = run(t, a.Run)
	waitFor(t, func() bool { return a.Ready() == nil })
	return s, a
}

func isOwnProxy(r *http.Request) bool {
	rest, ok := strings.CutPrefix(r.URL.Path, "/apis/proxy.varco.dev/v1/")
	return ok && strings.Contains(rest, "/proxy")
}

const ownProxy = "/apis/proxy.varco.dev/v1/namespaces/a/services/web/proxy/x"

// asAggregator is the header that the aggregation layer sends.
func asAggregator(user string, groups ...string) http.Header {
	return http.Header{
		"X-Remote-User": {user}, "X-Remote-Group": groups, "X-Remote-Extra-Scopes": {"s"}, "X-Forwarded-For": {"9.9.9.9, 10.1.2.3"}, "X-Forwarded-Host": {"kubernetes.example"},
	}
}

func TestAggregatedWantsBothPermissions(t *testing.T) {
	s, _ := newAggregated(t)
	c := s.client(t, s.proxies.pair(t, pkix.Name{CommonName: "front-proxy-client"}), 2)
	s.api.allowed = func(r authzv1.SubjectAccessReviewSpec) bool {
		return r.User == "both" || r.User == "own" && r.ResourceAttributes.Group == server.Group || r.User == "core" && r.ResourceAttributes.Group == ""
	}
	for user, want := range map[string]struct {
		code int
		body string
	}{
		"both": {200, "proxied"},
		"own":  {403, `User \"own\" cannot get resource \"services/proxy\" in API group \"proxy.varco.dev\" in the namespace \"a\": the same is not allowed for resource \"services/proxy\" in API group \"\"`},
		"core": {403, `User \"core\" cannot get resource \"services/proxy\" in API group \"proxy.varco.dev\" in the namespace \"a\""`},
	} {
		resp, body := do(t, c, http.MethodGet, s.url+ownProxy, asAggregator(user, "g"), nil)
		if resp.StatusCode != want.code || !strings.Contains(body, want.body) {
			t.Errorf("%s: answer %d %s", user, resp.StatusCode, body)
		}
		if user == "both" {
			if r := <-s.proxied; r.RemoteAddr != "10.1.2.3:0" || r.Host != "kubernetes.example" || r.Header.Get("X-Forwarded-For") != "9.9.9.9" {
				t.Errorf("the handler got %s %s %v", r.RemoteAddr, r.Host, r.Header)
			}
		}
	}
	s.api.takeReviews()
	do(t, c, http.MethodPost, s.url+strings.Replace(ownProxy, "web", "https:web:", 1), asAggregator("both", "g"), nil)
	<-s.proxied
	own := &authzv1.ResourceAttributes{Namespace: "a", Verb: "create", Group: "proxy.varco.dev", Version: "v1", Resource: "services", Subresource: "proxy", Name: "https:web:"}
	core := *own
	core.Group = ""
	var got []*authzv1.ResourceAttributes
	for _, r := range s.api.takeReviews() {
		got = append(got, r.ResourceAttributes)
	}
	if diff := cmp.Diff([]*authzv1.ResourceAttributes{own, &core}, got); diff != "" {
		t.Errorf("reviews (-want +got):\n%s", diff)
	}
}

// TestAggregatedTrustsOnlyTheAggregator sends what only the aggregation layer may say.
func TestAggregatedTrustsOnlyTheAggregator(t *testing.T) {
	s, _ := newAggregated(t)
	s.api.allowed = func(r authzv1.SubjectAccessReviewSpec) bool { return r.User != "system:anonymous" }
	other := newAuthority(t, "proxies")
	for name, c := range map[string]struct {
		client *http.Client
		code   int
	}{
		"nobody":                      {s.client(t, nil, 1), 403},
		"another authority's":         {s.client(t, other.pair(t, pkix.Name{CommonName: "front-proxy-client"}), 1), 401},
		"another name":                {s.client(t, s.proxies.pair(t, pkix.Name{CommonName: "other"}), 1), 401},
		"a client of the clients' CA": {s.client(t, s.clients.pair(t, pkix.Name{CommonName: "bob"}), 1), 200},
	} {
		resp, body := do(t, c.client, http.MethodGet, s.url+ownProxy, asAggregator("admin", "system:masters"), nil)
		if resp.StatusCode != c.code {
			t.Errorf("%s: answer %d %s", name, resp.StatusCode, body)
		}
		if c.code == 200 {
			if r := <-s.proxied; strings.HasPrefix(r.RemoteAddr, "10.") {
				t.Errorf("%s: the address is believed", name)
			}
		}
	}
	for _, r := range s.api.takeReviews() {
		if r.User == "admin" {
			t.Errorf("a review for %+v", r)
		}
	}
	if resp, body := do(t, s.client(t, s.proxies.pair(t, pkix.Name{CommonName: "front-proxy-client"}), 1), http.MethodGet, s.url+podProxy, asAggregator("admin", "system:masters"), nil); resp.StatusCode != 404 {
		t.Errorf("a path of the core group: answer %d %s", resp.StatusCode, body)
	}
}

// TestDiscovery asks as kubectl does, with and without aggregated discovery.
func TestDiscovery(t *testing.T) {
	s, _ := newAggregated(t)
	config := &rest.Config{Host: s.url, TLSClientConfig: rest.TLSClientConfig{CAData: s.serving.pem}, BearerToken: ""}
	client, err := discovery.NewDiscoveryClientForConfig(config)
	if err != nil {
		t.Fatal(err)
	}
	legacy := *client
	legacy.UseLegacyDiscovery = true
	for _, c := range []*discovery.DiscoveryClient{client, &legacy} {
		_, lists, err := c.ServerGroupsAndResources()
		if !c.UseLegacyDiscovery { // there is no /api
			groups, resources, failed, err := c.GroupsAndMaybeResources()
			if err != nil || len(groups.Groups) != 1 || len(failed) > 0 {
				t.Fatalf("groups %v, failed %v, error %v", groups, failed, err)
			}
			lists = append(lists[:0], resources[schema.GroupVersion{Group: server.Group, Version: server.Version}])
		} else if err != nil {
			t.Fatal(err)
		}
		if len(lists) != 1 || lists[0] == nil || lists[0].GroupVersion != "proxy.varco.dev/v1" {
			t.Fatalf("lists %+v", lists)
		}
		got := map[string]string{}
		for _, r := range lists[0].APIResources {
			if len(r.Verbs) > 0 {
				got[r.Name] = r.Kind
			}
		}
		want := map[string]string{"nodes/proxy": "NodeProxyOptions", "pods/proxy": "PodProxyOptions", "services/proxy": "ServiceProxyOptions"}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("legacy %v: (-want +got):\n%s", c.UseLegacyDiscovery, diff)
		}
	}
	var group metav1.APIGroup
	_, body := do(t, s.client(t, nil, 1), http.MethodGet, s.url+"/apis/proxy.varco.dev", nil, nil)
	if err := json.Unmarshal([]byte(body), &group); err != nil || group.PreferredVersion.GroupVersion != "proxy.varco.dev/v1" {
		t.Errorf("group %s, error %v", body, err)
	}
}

// TestOpenAPI reads the documents as the aggregation layer does.
func TestOpenAPI(t *testing.T) {
	s, _ := newAggregated(t)
	get := func(path string) []byte {
		resp, body := do(t, s.client(t, nil, 1), http.MethodGet, s.url+path, nil, nil)
		if resp.StatusCode != http.StatusOK {
			t.Fatalf("%s: answer %d %s", path, resp.StatusCode, body)
		}
		return []byte(body)
	}
	var v2 spec.Swagger
	if err := json.Unmarshal(get("/openapi/v2"), &v2); err != nil || v2.Swagger != "2.0" || v2.Paths == nil {
		t.Errorf("version 2: %+v, error %v", v2, err)
	}
	var root handler3.OpenAPIV3Discovery
	if err := json.Unmarshal(get("/openapi/v3"), &root); err != nil {
		t.Fatal(err)
	}
	var v3 spec3.OpenAPI
	if err := json.Unmarshal(get(root.Paths["apis/proxy.varco.dev/v1"].ServerRelativeURL), &v3); err != nil {
		t.Fatal(err)
	}
	got := v3.Paths.Paths["/apis/proxy.varco.dev/v1/namespaces/{namespace}/pods/{name}/proxy/{path}"]
	if len(v3.Paths.Paths) != 6 || got == nil || got.Post.OperationId != "connectPostProxyVarcoDevV1PodProxyOptionsNamespacedWithPath" || len(got.Parameters) != 3 {
		t.Errorf("version 3: %+v", got)
	}
}

func TestHealthNeedsNoPermission(t *testing.T) {
	s, _ := newAggregated(t)
	s.api.allowed = func(authzv1.SubjectAccessReviewSpec) bool { return false }
	c := s.client(t, nil, 1)
	for path, code := range map[string]int{"/healthz": 200, "/readyz": 200, "/livez": 200, "/apis": 403, "/openapi/v2": 403, "/elsewhere": 403} {
		if resp, body := do(t, c, http.MethodGet, s.url+path, nil, nil); resp.StatusCode != code {
			t.Errorf("%s: answer %d %s", path, resp.StatusCode, body)
		}
	}
	s.api.allowed = func(authzv1.SubjectAccessReviewSpec) bool { return true }
	s.api.mu.Lock()
	s.api.forbid = true
	s.api.mu.Unlock()
	do(t, c, http.MethodGet, s.url+"/not-asked-yet", nil, nil)
	if resp, body := do(t, c, http.MethodGet, s.url+"/readyz", nil, nil); resp.StatusCode != 500 || !strings.Contains(body, "system:auth-delegator") {
		t.Errorf("/readyz without reviews: answer %d %s", resp.StatusCode, body)
	}
}
