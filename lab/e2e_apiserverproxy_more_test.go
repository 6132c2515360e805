package main_test

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// disguised asks by paths that mean a proxy subresource but do not look so. What the original would serve must not get past
// varco, which may know better than the original what is allowed.
func (p *apiProxies) disguised(t *testing.T) {
	served := 0
	for _, path := range []string{
		"/api/v1/namespaces/default/services/plain/proxy%2Fx", "/api/v1/namespaces/default/services/plain/%70roxy/x",
		"/api/v1/namespaces/default/services%2Fplain/proxy/x", "/api/v1/namespaces%2Fdefault/services/plain/proxy/x",
		"/api/v1/namespaces/default/%73ervices/plain/proxy/x", "/api/v1/namespaces/default/services/plain%3A80/proxy/x",
		"/api%2Fv1/namespaces/default/services/plain/proxy/x", "/%61pi/v1/namespaces/default/services/plain/proxy/x",
		"/api/v1/namespaces/default/services/plain%2Fproxy/x", "/api/v1/namespaces/default/services/plain%2Fproxy%2Fx",
		"//api/v1/namespaces/default/services/plain/proxy/x", "/api//v1/namespaces/default/services/plain/proxy/x",
		"/api/v1//namespaces/default/services/plain/proxy/x", "/api/v1/namespaces/default//services/plain/proxy/x",
		"/api/v1/namespaces/default/services/plain//proxy/x", "/api/v1/./namespaces/default/services/plain/proxy/x",
		"/api/v1/namespaces/x/../default/services/plain/proxy/x", "/api/v1/namespaces/default/services/none/../plain/proxy/x",
		"/api/v1/namespaces/default/services/plain/status/../proxy/x", "/api/v1/namespaces/default/services/plain/proxy/../proxy/x",
		"/api/v1/namespaces/default/services/plain/proxy;a=b/x", "/api/v1/NAMESPACES/default/services/plain/proxy/x",
		"/api/v1/proxy/namespaces/default/services/plain/x", "/api/v1/watch/namespaces/default/services/plain/proxy/x",
		"/api/v1/nodes/node-1%2Fproxy/healthz", "/api/v1/nodes/node-1/proxy%2Fhealthz", "/api/v1//nodes/node-1/proxy/healthz",
	} {
		for _, w := range []way{p.original, p.ways[0], p.front()} {
			req := request{}.build(t, w)
			u, err := url.Parse(w.url + path)
			if err != nil {
				t.Fatal(err)
			}
			req.URL = u
			a := send(p.httpClient(t), req)
			switch {
			case w == p.original && a.status == http.StatusOK:
				served++
			case w != p.original && a.status < 400 && a.header.Get("X-Varco-Backend") == "" && a.header.Get("Location") == "":
				t.Errorf("%s: %s went past varco: %s", w.name, path, a)
			}
		}
	}
	if served == 0 {
		t.Error("the original served none of them: the disguises are too good")
	}
}

// affinity wants one pod for a client, by its address or by a cookie.
func (p *apiProxies) affinity(t *testing.T) {
	for name, edit := range map[string]func(*corev1.Service){
		"by-address": func(s *corev1.Service) { s.Spec.SessionAffinity = corev1.ServiceAffinityClientIP },
		"by-cookie":  func(s *corev1.Service) { s.Annotations = map[string]string{"varco.dev/affinity": "cookie"} },
	} {
		s := &corev1.Service{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec: corev1.ServiceSpec{Selector: map[string]string{"app": "echo"},
				Ports: []corev1.ServicePort{{Port: 80, TargetPort: intstr.FromInt32(8080)}}},
		}
		edit(s)
		services := p.lab.client.CoreV1().Services(metav1.NamespaceDefault)
		if _, err := services.Create(t.Context(), s, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = services.Delete(context.Background(), name, metav1.DeleteOptions{}) })
		for _, w := range p.ways {
			t.Run(name+" "+w.name, func(t *testing.T) { p.onePod(t, w, name) })
		}
	}
}

func (p *apiProxies) onePod(t *testing.T, w way, service string) {
	r := request{path: services + service + "/proxy/x", header: map[string]string{"Cookie": "mine=1"}}
	var first answer
	p.wait(t, "the Service", func() (string, bool) {
		first = p.ask(t, w, r)
		return first.String(), first.status == http.StatusOK
	})
	for _, line := range first.header["Set-Cookie"] {
		cookie, err := http.ParseSetCookie(line)
		if err != nil || cookie.Path != w.base+"/"+services+service+"/proxy" || !cookie.HttpOnly {
			t.Errorf("cookie %q, %v", line, err)
			continue
		}
		r.header["Cookie"] += "; " + cookie.Name + "=" + cookie.Value
	}
	if got := len(first.header["Set-Cookie"]); (got > 0) != (service == "by-cookie") {
		t.Errorf("%d cookies are set", got)
	}
	for range 20 {
		a := p.ask(t, w, r)
		if a.header.Get("X-Pod") != first.header.Get("X-Pod") {
			t.Fatalf("pod %s answers, want %s", a.header.Get("X-Pod"), first.header.Get("X-Pod"))
		}
		if wrong := sawHeader("Cookie", "mine=1")(a); wrong != "" {
			t.Fatal(wrong)
		}
	}
}

// verified wants the certificate of a pod to be the one that its annotation names; the original trusts every one.
func (p *apiProxies) verified(t *testing.T) {
	pod, err := p.lab.client.CoreV1().Pods(metav1.NamespaceDefault).Get(t.Context(), "bare", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	host := p.open(t, p.controlPlane(0).Name)
	raw, err := host.DialContext(t.Context(), "tcp", net.JoinHostPort(pod.Status.PodIP, "443"))
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	conn := tls.Client(raw, &tls.Config{InsecureSkipVerify: true}) // it is only asked who it is
	if err := conn.HandshakeContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	own := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: conn.ConnectionState().PeerCertificates[0].Raw})
	for _, step := range []struct {
		ca, name any
		status   int
	}{
		{string(own), "localhost", http.StatusOK}, {string(own), "other.test", http.StatusServiceUnavailable},
		{string(p.admin.CAData), "localhost", http.StatusServiceUnavailable}, {nil, nil, http.StatusOK},
	} {
		patch, err := json.Marshal(map[string]any{"metadata": map[string]any{"annotations": map[string]any{
			"varco.dev/backend-ca": step.ca, "varco.dev/backend-server-name": step.name,
		}}})
		if err != nil {
			t.Fatal(err)
		}
		_, err = p.lab.client.CoreV1().Pods(metav1.NamespaceDefault).Patch(t.Context(), "bare", types.MergePatchType, patch, metav1.PatchOptions{})
		if err != nil {
			t.Fatal(err)
		}
		for _, w := range p.ways {
			p.wait(t, fmt.Sprintf("status %d for name %v, %s", step.status, step.name, w.name), func() (string, bool) {
				a := p.ask(t, w, request{path: pods + "https:bare:443/proxy/x"})
				return a.String(), a.status == step.status
			})
		}
	}
}

// strict asks a front that takes an upgrade for more than reading.
func (p *apiProxies) strict(t *testing.T) {
	const port = frontPort + 1
	at := strings.Replace(p.front().url, fmt.Sprint(frontPort), fmt.Sprint(port), 1)
	p.run(t, at+"/readyz", append([]string{"front", "--strict-upgrades",
		"--client-ca-file=" + p.pki("ca.crt"),
		"--proxy-client-cert-file=" + p.pki("front-proxy-client.crt"),
		"--proxy-client-key-file=" + p.pki("front-proxy-client.key"),
	}, p.common(t, port)...)...)
	rule := func(verbs ...string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"services/proxy", "nodes/proxy"}, Verbs: verbs}
	}
	reader, writer := p.account(t, "reader", rule("get")), p.account(t, "writer", rule("get", "create"))
	conf := p.tls(t)
	conf.Certificates = nil
	dialer := websocket.Dialer{NetDialContext: p.client.DialContext, TLSClientConfig: conf}
	for _, tc := range []struct {
		url, token string
		status     int
	}{
		{p.front().url, reader, http.StatusSwitchingProtocols}, {at, reader, http.StatusForbidden}, {at, writer, http.StatusSwitchingProtocols},
	} {
		p.wait(t, fmt.Sprintf("status %d of %s", tc.status, tc.url), func() (string, bool) { // the role is known some time
			c, resp, err := dialer.DialContext(t.Context(), "wss"+strings.TrimPrefix(tc.url, "https")+coreBase+"/"+services+"plain/proxy/ws",
				http.Header{"Authorization": {"Bearer " + tc.token}})
			if c != nil {
				c.Close()
			}
			if resp == nil {
				return fmt.Sprint(err), false
			}
			return resp.Status, resp.StatusCode == tc.status
		})
	}
	a := p.ask(t, way{"strict", at, coreBase}, request{path: "nodes/node-1/proxy/run/x", header: map[string]string{"Authorization": "Bearer " + reader}})
	if a.status == http.StatusOK {
		t.Errorf("%s", a)
	}
}

// counted wants what is open to be counted as the original counts it, in the API server's own metrics.
func (p *apiProxies) counted(t *testing.T) {
	count := regexp.MustCompile(`(?m)^apiserver_longrunning_requests\{[^}]*resource="services"[^}]*subresource="proxy"[^}]*\} (\d+)$`)
	dialer := websocket.Dialer{NetDialContext: p.client.DialContext, TLSClientConfig: p.tls(t)}
	for _, w := range []way{p.original, p.ways[0]} {
		c, resp, err := dialer.DialContext(t.Context(), "wss"+strings.TrimPrefix(w.url, "https")+coreBase+"/"+services+"plain/proxy/ws", nil)
		if err != nil {
			t.Fatalf("%v: %+v", err, resp)
		}
		defer c.Close()
		metrics := p.ask(t, way{w.name, w.url, ""}, request{path: "metrics"})
		if found := count.FindSubmatch(metrics.body); found == nil || !bytes.Equal(found[1], []byte("1")) {
			t.Errorf("%s: counted %q, want 1", w.name, found)
		}
	}
}

// apiServerAway restarts the API server that the front is in front of: what is open to a pod stays, and all else comes back.
func (p *apiProxies) apiServerAway(t *testing.T) {
	const name = "kube-apiserver-1"
	dialer := websocket.Dialer{NetDialContext: p.client.DialContext, TLSClientConfig: p.tls(t)}
	c, resp, err := dialer.DialContext(t.Context(), "wss"+strings.TrimPrefix(p.front().url, "https")+coreBase+"/"+services+"plain/proxy/ws", nil)
	if err != nil {
		t.Fatalf("%v: %+v", err, resp)
	}
	defer c.Close()
	if _, _, err := c.ReadMessage(); err != nil { // who answers
		t.Fatal(err)
	}
	if err := p.Stop(t.Context(), name, 0); err != nil {
		t.Fatal(err)
	}
	if err := c.WriteMessage(websocket.TextMessage, []byte("still there")); err != nil {
		t.Fatal(err)
	}
	if _, text, err := c.ReadMessage(); err != nil || string(text) != "still there" {
		t.Errorf("the WebSocket: %q, %v", text, err)
	}
	if a := p.ask(t, p.front(), request{path: "namespaces"}); a.status < 500 {
		t.Errorf("without an API server: %s", a)
	}
	if err := p.Start(t.Context(), name); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{"namespaces", services + "plain/proxy/x"} {
		for _, w := range p.ways[1:] {
			if w.base == aggregatedBase && path == "namespaces" {
				continue // not of this group
			}
			p.wait(t, "the API server to come back, "+w.name, func() (string, bool) {
				a := p.ask(t, w, request{path: path})
				return a.String(), a.status == http.StatusOK
			})
		}
	}
}
