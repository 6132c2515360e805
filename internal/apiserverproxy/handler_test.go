package apiserverproxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"

	"varco.dev/internal/apiserverproxy"
)

// TestOthers wants what is no proxy path to be handed on as it is, and what is one in a bad form to be refused here.
func TestOthers(t *testing.T) {
	s := newStage(t, oneWeb())
	for _, path := range []string{
		"/", "/api/v1/pods", "/api/v1/namespaces/ns/services/web", "/api/v1/namespaces/ns/pods/a/log", "/api/v1/namespaces/ns/configmaps/web/proxy/x",
		"/apis/proxy.varco.dev/v1/namespaces/ns/services/web/proxy/", "/api/v1/watch/namespaces/ns/services/web/proxy/",
	} {
		if a := s.get(path); a.code != http.StatusTeapot {
			t.Errorf("%s: got %d %s", path, a.code, a.body)
			continue
		}
		if r := <-s.passed; r.URL.Path != path {
			t.Errorf("%s: handed on as %s", path, r.URL)
		}
	}
	for path, code := range map[string]int{
		"/api/v1/namespaces/ns/services/a:b:c:d/proxy/":  400,
		"/api/v1/namespaces/ns/services/ftp:a:1/proxy/":  400,
		"/api/v1/namespaces/ns/services/nobody/proxy/":   503, // as in the original, which looks at slices alone
		"/api/v1/namespaces/ns/services/nobody:1/proxy/": 404,
		"/api/v1/namespaces/ns/services/web:81/proxy/":   503,
		"/api/v1/namespaces/ns/pods/nobody/proxy/":       404,
		"/api/v1/nodes/nobody/proxy/":                    404,
	} {
		if a := s.get(path); a.code != code || !strings.Contains(a.body, `"kind":"Status"`) {
			t.Errorf("%s: got %d %s, want %d", path, a.code, a.body, code)
		}
	}
}

// TestGone wants paths of old to name those of today.
func TestGone(t *testing.T) {
	s := newStage(t, oneWeb())
	for path, today := range map[string]string{
		"/api/v1/proxy/namespaces/ns/services/web:80/a/b": "/api/v1/namespaces/ns/services/web:80/proxy/a/b",
		"/api/v1/proxy/nodes/node-1/logs/":                "/api/v1/nodes/node-1/proxy/logs/",
		"/api/v1/redirect/namespaces/ns/pods/a":           "/api/v1/namespaces/ns/pods/a/proxy",
	} {
		a := s.get(path)
		if a.code != http.StatusGone || !strings.Contains(a.body, `"reason":"Gone"`) || !strings.Contains(a.body, today) {
			t.Errorf("%s: got %d %s", path, a.code, a.body)
		}
	}
}

// TestAuthorizedAsAnother wants a request whose RequestInfo, which was authorized, names something else to be refused.
func TestAuthorizedAsAnother(t *testing.T) {
	s := newStage(t, oneWeb())
	s.target("10.1.0.1:80", echo)
	for _, c := range []struct {
		path, authorized string
		code             int
	}{
		{service + "/", service + "/", 200},
		{service + "/", "/api/v1/namespaces/mine/services/web/proxy/", 400},
		{service + "/", "/api/v1/namespaces/ns/services/other/proxy/", 400},
		{service + "/", "/api/v1/namespaces/ns/pods/web/proxy/", 400},
		{service + "/", "/api/v1/namespaces/ns/services/web/status", 400},
		{service + "/", "/apis/apps/v1/namespaces/ns/services/web/proxy/", 400},
		{service + "/", "/version", 400},
	} {
		info, err := infos().NewRequestInfo(httptest.NewRequest("GET", c.authorized, nil))
		if err != nil {
			t.Fatal(err)
		}
		w, r := httptest.NewRecorder(), httptest.NewRequest("GET", c.path, nil)
		s.handler.ServeHTTP(w, r.WithContext(request.WithRequestInfo(r.Context(), info)))
		if w.Code != c.code {
			t.Errorf("%s authorized as %s: got %d %s", c.path, c.authorized, w.Code, w.Body)
		}
	}
	w := httptest.NewRecorder()
	if s.handler.ServeHTTP(w, httptest.NewRequest("GET", service+"/", nil)); w.Code != 400 {
		t.Errorf("not authorized at all: got %d %s", w.Code, w.Body)
	}
}

// TestLimits wants users and targets to be bounded, with upgrades counted, and places to be free again afterwards.
func TestLimits(t *testing.T) {
	s := newStage(t, append(oneWeb(), pod("a", "10.1.0.9", "=80")), func(c *apiserverproxy.Config) {
		c.MaxPerUser, c.MaxPerTarget = 2, 3
	})
	goOn, arrived := make(chan struct{}), make(chan struct{}, 10)
	s.target("10.1.0.1:80", func(_ http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/wait" {
			arrived <- struct{}{}
			<-goOn
		}
	})
	s.target("10.1.0.9:80", echo)
	ended := make(chan int, 10)
	for _, user := range []string{"bob", "bob", "carol"} {
		go func() {
			req, _ := http.NewRequest("GET", s.ours.URL+service+"/wait", nil)
			req.Header.Set("Authorization", "Bearer "+user)
			resp, err := http.DefaultClient.Do(req)
			if err != nil {
				ended <- 0
				return
			}
			resp.Body.Close()
			ended <- resp.StatusCode
		}()
		<-arrived
	}
	for _, c := range []struct {
		user, path string
		code       int
	}{
		{"bob", "/api/v1/namespaces/ns/pods/a/proxy/", 429}, // two of bob's are open
		{"carol", "/api/v1/namespaces/ns/pods/a/proxy/", 200},
		{"dave", service + "/", 429}, // three are open to the Service
		{"dave", "/api/v1/namespaces/ns/pods/a/proxy/", 200},
	} {
		a := s.get(c.path, "Authorization: Bearer "+c.user)
		if a.code != c.code || (a.header.Get("Retry-After") != "") != (c.code == 429) {
			t.Errorf("%s at %s: got %d %v %s", c.user, c.path, a.code, a.header, a.body)
		}
	}
	close(goOn)
	for range 3 {
		if code := <-ended; code != 200 {
			t.Errorf("a request that was let in got %d", code)
		}
	}
	if a := s.get(service+"/", "Authorization: Bearer bob"); a.code != 200 {
		t.Errorf("afterwards: got %d %s", a.code, a.body)
	}
}

// rules is an authorizer that allows verbs, and remembers what it was asked.
type rules struct {
	verbs string
	asked []authorizer.Attributes
}

func (r *rules) Authorize(_ context.Context, a authorizer.Attributes) (authorizer.Decision, string, error) {
	r.asked = append(r.asked, a)
	if strings.Contains(r.verbs, a.GetVerb()) {
		return authorizer.DecisionAllow, "", nil
	}
	return authorizer.DecisionNoOpinion, "RBAC says no", nil
}

// TestStrictUpgrades wants create for what is more than reading.
func TestStrictUpgrades(t *testing.T) {
	mine := &rules{verbs: "get"}
	s := newStage(t, append(oneWeb(), nodeAt(corev1.NodeInternalIP, "10.0.0.1")), func(c *apiserverproxy.Config) {
		c.StrictUpgrades, c.Authorizer = true, mine
	})
	s.target("10.1.0.1:80", echo)
	s.target("10.0.0.1:10250", echo, overTLS)
	const node = "/api/v1/nodes/node-1/proxy"
	for raw, code := range map[string]int{
		simple("GET", service+"/exec"):                    200,
		simple("GET", node+"/metrics"):                    200,
		wantsUpgrade(service + "/x"):                      403,
		wantsUpgrade(node + "/x"):                         403,
		simple("GET", node+"/exec/ns/pod/c"):              403,
		simple("GET", node+"/%65xec/ns/pod/c"):            403,
		simple("GET", node+"//exec/ns/pod/c"):             403,
		simple("GET", node+"/x/../run/ns/pod/c"):          403,
		simple("GET", node+"/x%2f..%2fRUN/ns/pod/c"):      403,
		simple("GET", node+"/portForward/ns/pod"):         403,
		simple("GET", node+"/attach/ns/pod/c"):            403,
		simple("POST", node+"/run/ns/pod/c"):              200, // that it may was asked before
		simple("GET", service+"/", "Connection: Upgrade"): 403,
	} {
		mine.asked = nil
		a := s.ask(s.ours, raw)
		if a.code != code {
			t.Errorf("%q: got %d %s, want %d", raw, a.code, a.body, code)
		}
		if code == 403 && (len(mine.asked) != 1 || mine.asked[0].GetVerb() != "create" || mine.asked[0].GetSubresource() != "proxy" || mine.asked[0].GetUser().GetName() != alice ||
			!strings.Contains(a.body, `cannot create resource \"`)) {
			t.Errorf("%q: asked for %v, answered %s", raw, mine.asked, a.body)
		}
	}
	mine.verbs = "create"
	if a := s.get(node + "/exec/x"); a.code != 200 {
		t.Errorf("with the permission: got %d %s", a.code, a.body)
	}
	if _, err := apiserverproxy.New(apiserverproxy.Config{StrictUpgrades: true}); err == nil {
		t.Error("strict without an authorizer is accepted")
	}
}

// TestNodeCommands wants commands by an upgrade through a node to need create even if nobody has asked for strictness.
func TestNodeCommands(t *testing.T) {
	for _, mine := range []*rules{nil, {verbs: "get"}, {verbs: "get create"}} {
		s := newStage(t, append(oneWeb(), nodeAt(corev1.NodeInternalIP, "10.0.0.1")), func(c *apiserverproxy.Config) {
			if mine != nil {
				c.Authorizer = mine
			}
		})
		s.target("10.0.0.1:10250", echo, overTLS)
		s.target("10.1.0.1:80", echo)
		code := 403
		if mine != nil && strings.Contains(mine.verbs, "create") {
			code = 500 // it came through: the target is no kubelet and ignores the upgrade
		}
		const node = "/api/v1/nodes/node-1/proxy"
		for raw, want := range map[string]int{
			wantsUpgrade(node + "/exec/ns/pod/c?command=id"): code,
			wantsUpgrade(node + "/./%45xec/ns/pod/c"):        code,
			wantsUpgrade(service + "/exec"):                  500,
			wantsUpgrade(node + "/x"):                        500,
			simple("GET", node+"/exec/ns/pod/c"):             200,
		} {
			if a := s.ask(s.ours, raw); a.code != want {
				t.Errorf("%v: %q: got %d %s, want %d", mine, raw, a.code, a.body, want)
			}
		}
	}
}

// gate is an admission plugin that refuses a path.
type gate struct{ seen []admission.Attributes }

func (g *gate) Handles(o admission.Operation) bool { return o == admission.Connect }

func (g *gate) Validate(_ context.Context, a admission.Attributes, _ admission.ObjectInterfaces) error {
	g.seen = append(g.seen, a)
	if o, ok := a.GetObject().(*corev1.ServiceProxyOptions); ok && strings.HasPrefix(o.Path, "/admin") {
		return admission.NewForbidden(a, errors.New("not this path"))
	}
	return nil
}

// TestAdmission wants policies to see what they see in kube-apiserver.
func TestAdmission(t *testing.T) {
	g := &gate{}
	s := newStage(t, append(oneWeb(), nodeAt(corev1.NodeInternalIP, "10.0.0.1")), func(c *apiserverproxy.Config) { c.Admission = g })
	s.target("10.1.0.1:80", echo)
	if a := s.get(service + "/admin/x"); a.code != 403 || !strings.Contains(a.body, "not this path") {
		t.Errorf("got %d %s", a.code, a.body)
	}
	if a := s.get("/api/v1/namespaces/ns/services/http:web:80/proxy/y%20z/"); a.code != 200 {
		t.Errorf("got %d %s", a.code, a.body)
	}
	_ = s.get("/api/v1/nodes/node-1/proxy")
	var got []string
	for _, a := range g.seen {
		got = append(got, fmt.Sprintf("%s %s %s/%s %s/%s %s %s", a.GetOperation(), a.GetKind(), a.GetNamespace(), a.GetName(), a.GetResource().Resource, a.GetSubresource(),
			a.GetObject().GetObjectKind().GroupVersionKind().Kind, a.GetUserInfo().GetName()))
	}
	want := []string{
		"CONNECT /v1, Kind=ServiceProxyOptions ns/web services/proxy ServiceProxyOptions alice",
		"CONNECT /v1, Kind=ServiceProxyOptions ns/http:web:80 services/proxy ServiceProxyOptions alice",
		"CONNECT /v1, Kind=NodeProxyOptions /node-1 nodes/proxy NodeProxyOptions alice",
	}
	if strings.Join(got, "\n") != strings.Join(want, "\n") {
		t.Errorf("got\n%s", strings.Join(got, "\n"))
	}
}

// TestAdmissionPath wants the path in the options to be what kube-apiserver puts there (getRequestOptions in
// apiserver/pkg/endpoints/handlers/get.go), but for dot segments: a policy that gates "/admin/" must not be got around.
func TestAdmissionPath(t *testing.T) {
	g := &gate{}
	s := newStage(t, oneWeb(), func(c *apiserverproxy.Config) { c.Admission = g })
	s.target("10.1.0.1:80", echo)
	for asked, want := range map[string]string{
		"": "", "/": "/", "//": "/", "/y%20z": "/y z", "/y%20z/": "/y z/", "//y": "/y", "/y//z/": "/y//z/", "/%2Fy": "/y", "/./y/": "/y/",
		"/x/../y": "/y", "/.y/": "/.y/",
	} {
		_ = s.get(service + asked)
		if got := g.seen[len(g.seen)-1].GetObject().(*corev1.ServiceProxyOptions).Path; got != want {
			t.Errorf("%q: the path is %q, want %q", asked, got, want)
		}
	}
	for _, path := range []string{"/admin", "/admin/", "//admin/x", "/%61dmin/", "/x/../admin", "/x%2f..%2fadmin/"} {
		if a := s.get(service + path); a.code != 403 {
			t.Errorf("%s: got %d", path, a.code)
		}
	}
}

// TestOwnAddresses wants no way through a Service to the API servers themselves, and to what the caller calls its own.
func TestOwnAddresses(t *testing.T) {
	s := newStage(t, web([]string{"=6443", "other=80"}, pod("web-a", "10.1.0.1")), func(c *apiserverproxy.Config) {
		c.Outbound.Own = func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("10.1.0.1:6443")} }
	})
	s.target("10.1.0.1:6443", echo)
	s.target("10.1.0.1:80", echo)
	if a := s.get("/api/v1/namespaces/ns/services/web:6443/proxy/"); a.code != 400 {
		t.Errorf("got %d %s", a.code, a.body)
	}
	if a := s.get("/api/v1/namespaces/ns/services/web:80/proxy/"); a.code != 200 {
		t.Errorf("another port of it: got %d %s", a.code, a.body)
	}
}

// TestSpreadAndRetry wants requests to reach all endpoints alike, and a dead one to cost nothing.
func TestSpreadAndRetry(t *testing.T) {
	var pods []*corev1.Pod
	for i := range 5 {
		pods = append(pods, pod(fmt.Sprintf("web-%d", i), fmt.Sprintf("10.1.0.%d", i+1)))
	}
	s := newStage(t, web([]string{"=80"}, pods...))
	for i := range 4 { // the fifth is dead
		s.target(fmt.Sprintf("10.1.0.%d:80", i+1), echo)
	}
	counts := map[string]int{}
	for range 400 {
		a := s.get(service + "/")
		if a.code != 200 {
			t.Fatalf("got %d %s", a.code, a.body)
		}
		counts[a.header.Get("X-Varco-Backend")]++
	}
	for i := range 4 {
		if n := counts[fmt.Sprintf("10.1.0.%d:80", i+1)]; n < 90 || n > 110 {
			t.Errorf("shares are %v", counts)
			break
		}
	}
}

// TestDrain wants a request that is being served to end in order, and new ones to be turned away.
func TestDrain(t *testing.T) {
	s := newStage(t, oneWeb())
	goOn, arrived := make(chan struct{}), make(chan struct{})
	s.target("10.1.0.1:80", func(w http.ResponseWriter, _ *http.Request) {
		close(arrived)
		<-goOn
		io.WriteString(w, "done")
	})
	got := make(chan answer, 1)
	go func() { got <- s.get(service + "/") }()
	<-arrived
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- s.handler.Drain(ctx) }()
	for {
		if a := s.get(service + "/"); a.code == 503 {
			if a.header.Get("Retry-After") == "" {
				t.Errorf("no Retry-After in %v", a.header)
			}
			break
		}
	}
	close(goOn)
	if a := <-got; a.code != 200 || a.body != "done" {
		t.Errorf("got %d %q", a.code, a.body)
	}
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// TestCredentialsStayHere has credentials for the API server where they are not looked for first: as a subprotocol of a client
// that has a certificate, and in trailers, of which the original hands on the names alone.
func TestCredentialsStayHere(t *testing.T) {
	s := newStage(t, oneWeb())
	s.target("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) {
		body, err := io.ReadAll(r.Body)
		fmt.Fprintf(w, "%s %v %v %q", body, err, r.Trailer, r.Header["Sec-Websocket-Protocol"])
	})
	const token = "base64url.bearer.authorization.k8s.io.c2VjcmV0"
	for want, lines := range map[string][]string{
		` <nil> map[] ["v1, v2"]`: {"Sec-WebSocket-Protocol: v1, " + token, "Sec-WebSocket-Protocol: v2," + token},
		` <nil> map[] []`:         {"Sec-WebSocket-Protocol: " + token},
		` <nil> map[] ["v1,v2"]`:  {"Sec-WebSocket-Protocol: v1,v2"},
	} {
		if a := s.get(service+"/", lines...); a.body != want {
			t.Errorf("%q: the target sees %s", lines, a.body)
		}
	}
	a := s.ask(s.ours, "POST "+service+"/ HTTP/1.1\nHost: a\nTransfer-Encoding: chunked\nTrailer: X-Remote-User\n\n3\nabc\n0\n"+
		"X-Remote-User: root\nImpersonate-User: root\nAuthorization: Bearer secret\n\n")
	if want := `abc <nil> map[] []`; a.body != want {
		t.Errorf("the target sees %s, want %s", a.body, want)
	}
}
