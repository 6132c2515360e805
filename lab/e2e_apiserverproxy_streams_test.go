package main_test

import (
	"bytes"
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/remotecommand"
)

// upgrades opens WebSockets, and asks for some that cannot be.
func (p *apiProxies) upgrades(t *testing.T) {
	pod := p.echoPod(t)
	for _, w := range append([]way{p.original}, p.ways...) {
		for name, path := range map[string]string{
			"Service": services + "plain/proxy/ws", "Service over TLS": services + "https:web:https/proxy/ws",
			"pod": pods + pod.Name + ":8080/proxy/ws", "node": "nodes/node-1:8080/proxy/ws",
		} {
			t.Run("to a "+name+" "+w.name, func(t *testing.T) { p.webSocket(t, w, path) })
		}
	}
	token := p.account(t, "browser", rbacv1.PolicyRule{APIGroups: []string{"", "proxy.varco.dev"}, Resources: []string{"services/proxy"}, Verbs: []string{"get"}})
	for _, w := range append([]way{p.original}, p.ways...) {
		t.Run("by a page "+w.name, func(t *testing.T) { p.webSocketOfPage(t, w, token) })
	}
	p.refusedUpgrades(t, pod)
}

func (p *apiProxies) webSocket(t *testing.T, w way, path string) {
	dialer := websocket.Dialer{NetDialContext: p.client.DialContext, TLSClientConfig: p.tls(t)}
	at := "wss" + strings.TrimPrefix(w.url, "https") + w.base + "/" + path
	c, resp, err := dialer.DialContext(t.Context(), at, nil)
	if err != nil {
		t.Fatalf("%v: %+v", err, resp)
	}
	defer c.Close()
	if _, hello, err := c.ReadMessage(); err != nil || !strings.HasPrefix(string(hello), "pod=") {
		t.Fatalf("greeting %q, %v", hello, err)
	}
	for _, text := range []string{"hello", strings.Repeat("long", 50_000)} {
		if err := c.WriteMessage(websocket.TextMessage, []byte(text)); err != nil {
			t.Fatal(err)
		}
		if _, got, err := c.ReadMessage(); err != nil || string(got) != text {
			t.Fatalf("got %d bytes, %v; want %d", len(got), err, len(text))
		}
	}
	if err := c.WriteMessage(websocket.CloseMessage, websocket.FormatCloseMessage(websocket.CloseNormalClosure, "")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := c.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseNormalClosure) {
		t.Errorf("closed with %v", err)
	}
}

// webSocketOfPage has the token where pages, which can set no header, put it: no target may see it.
func (p *apiProxies) webSocketOfPage(t *testing.T, w way, token string) {
	conf := p.tls(t)
	conf.Certificates = nil
	dialer := websocket.Dialer{NetDialContext: p.client.DialContext, TLSClientConfig: conf,
		Subprotocols: []string{"base64url.bearer.authorization.k8s.io." + base64.RawURLEncoding.EncodeToString([]byte(token)), "chat"}}
	var seen http.Header
	p.wait(t, "the WebSocket of a page", func() (string, bool) { // the role is known some time
		c, resp, err := dialer.DialContext(t.Context(), "wss"+strings.TrimPrefix(w.url, "https")+w.base+"/"+services+"plain/proxy/ws?a=b%20c", nil)
		if c != nil {
			c.Close()
			seen = resp.Header
		}
		return fmt.Sprint(err), err == nil
	})
	if got := seen.Get("X-Protocols"); got != "chat" {
		t.Errorf("the target saw the protocols %q, want chat alone", got)
	}
	if got := seen.Get("X-Query"); got != "a=b%20c" && w != p.original && w.base == coreBase {
		t.Errorf("the target saw the query %q", got)
	}
}

// refusedUpgrades wants the same answers as the original's where no upgrade comes of it.
func (p *apiProxies) refusedUpgrades(t *testing.T, pod *corev1.Pod) {
	c := p.httpClient(t)
	c.Transport.(*http.Transport).ForceAttemptHTTP2 = false // HTTP/2 has no upgrades
	ask := map[string]string{"Connection": "Upgrade", "Upgrade": "websocket", "Sec-Websocket-Key": "x3JJHMbDL1EzLkh9GBhXDw==", "Sec-Websocket-Version": "13"}
	const query = "the original drops the query of an upgrade"
	const past = "the original writes the answer past the API server, without that one's headers"
	const layer = "the aggregation layer makes another error of it"
	for _, r := range []row{
		{name: "nobody listens", request: request{path: pods + pod.Name + ":9999/proxy/ws"}, hop: layer,
			want: status(http.StatusInternalServerError, "error dialing backend: dial tcp")},
		{name: "answered with 200", request: request{path: services + "plain/proxy/answer?body=x"}, hop: layer},
		{name: "answered with a redirect", request: request{path: services + "plain/proxy/redirect?to=/x"}, differs: query, hop: layer,
			want: status(http.StatusInternalServerError, "invalid upgrade response: status code 302")},
		{name: "answered with 404", request: request{path: services + "plain/proxy/status/404"}, differs: past, want: status(http.StatusNotFound, "")},
		{name: "answered with 503", request: request{path: services + "plain/proxy/status/503"}, differs: past, want: status(http.StatusServiceUnavailable, "")},
		{name: "no such Service", request: request{path: services + "none/proxy/ws"}},
		{name: "no endpoints", request: request{path: services + "empty/proxy/ws"}},
		{name: "four parts", request: request{path: services + "a:b:c:d/proxy/ws"}},
		{name: "no such node", request: request{path: "nodes/none/proxy/ws"}},
		{name: "bare", request: request{path: services + "plain/proxy"}, hop: layer},
		{name: "POST", request: request{method: "POST", path: services + "plain/proxy/answer"}, hop: layer},
		{name: "dryRun", request: request{path: services + "plain/proxy/ws?dryRun=All"}},
	} {
		r.header = ask
		t.Run("refused: "+r.name, func(t *testing.T) {
			original := send(c, r.build(t, p.original))
			for _, w := range p.ways {
				if w.base != aggregatedBase || r.hop == "" {
					r.compare(t, w, original, send(c, r.build(t, w)))
				}
			}
		})
	}
}

// nodeCommands runs a command through the kubelet's own port. The original drops the query of an upgrade, and so the command.
func (p *apiProxies) nodeCommands(t *testing.T) {
	pod := p.echoPod(t)
	query := url.Values{"command": {"sh", "-c", "cat; echo done >&2"}, "input": {"1"}, "output": {"1"}, "error": {"1"}}
	for _, w := range append([]way{p.original}, p.ways...) {
		t.Run(w.name, func(t *testing.T) {
			conf := p.configOf(t, w)
			conf.Dial, conf.Host = nil, p.forwarded(t, w)
			at, err := url.Parse(fmt.Sprintf("%s%s/nodes/%s/proxy/exec/default/%s/echo?%s", conf.Host, w.base, pod.Spec.NodeName, pod.Name, query.Encode()))
			if err != nil {
				t.Fatal(err)
			}
			e, err := remotecommand.NewSPDYExecutor(conf, http.MethodPost, at)
			if err != nil {
				t.Fatal(err)
			}
			var out, errs bytes.Buffer
			err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader("hello"), Stdout: &out, Stderr: &errs})
			if w == p.original {
				if err == nil {
					t.Errorf("the original ran it: %q", &out)
				}
				return
			}
			if err != nil || out.String() != "hello" || errs.String() != "done\n" {
				t.Errorf("got %q and %q, %v", &out, &errs, err)
			}
		})
	}
}

// grpc calls a server that speaks HTTP/2 without TLS; the original does not reach it.
func (p *apiProxies) grpc(t *testing.T) {
	for _, w := range append(p.ways, p.original) {
		at := strings.TrimPrefix(w.url, "https://")
		c, err := grpc.NewClient("passthrough:///"+at, grpc.WithTransportCredentials(credentials.NewTLS(p.tls(t))),
			grpc.WithContextDialer(func(ctx context.Context, at string) (conn netConn, err error) {
				return p.client.DialContext(ctx, "tcp", at)
			}))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		method := w.base + "/" + services + "web:calls/proxy/grpc.health.v1.Health/Check"
		var got grpc_health_v1.HealthCheckResponse
		err = c.Invoke(t.Context(), method, &grpc_health_v1.HealthCheckRequest{}, &got)
		if (err == nil) != (w != p.original) {
			t.Errorf("%s: %v", w.name, err)
		}
		if err == nil && got.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
			t.Errorf("%s: %v", w.name, got.GetStatus())
		}
	}
}

// streamed wants the first part of an answer before the last.
func (p *apiProxies) streamed(t *testing.T) {
	const pause = time.Second
	page := "plain/proxy/answer?header=" + url.QueryEscape("Content-Type:text/html") + "&body=" + url.QueryEscape(`<a href="/x">1</a>`) + "&body=2&pause=" + pause.String()
	for _, w := range append([]way{p.original}, p.ways...) {
		for name, path := range map[string]string{"events": "plain/proxy/events?interval=1s&count=2", "page": page} {
			if name == "page" && (w == p.original || w.base == aggregatedBase) {
				continue // the original holds pages until it has all of them, and so does the aggregation layer, whatever is behind it
			}
			t.Run(name+" "+w.name, func(t *testing.T) {
				resp := do(t, p.httpClient(t), request{path: services + path}.build(t, w))
				begin := time.Now()
				b := make([]byte, 10)
				if _, err := io.ReadFull(resp.Body, b); err != nil {
					t.Fatal(err)
				}
				if took := time.Since(begin); took > pause/2 {
					t.Errorf("the first part came after %s", took)
				}
				if _, err := io.ReadAll(resp.Body); err != nil || time.Since(begin) < pause/2 {
					t.Errorf("the rest came after %s, %v", time.Since(begin), err)
				}
			})
		}
	}
}

// throughFront does with the API server in front of which varco is what clients do with the API server.
func (p *apiProxies) throughFront(t *testing.T) {
	conf := p.configOf(t, p.front())
	conf.Dial, conf.Host = nil, p.forwarded(t, p.front())
	p.talker(t)
	t.Run("client", func(t *testing.T) { useClient(t, clientset(t, conf)) })
	p.streams(t, conf)
	t.Run("streams with a token", func(t *testing.T) {
		const name = "operator"
		p.grantAll(t, name)
		withToken := as(conf, p.token(t, metav1.NamespaceDefault, name))
		for protocol, open := range protocols() {
			t.Run(protocol, func(t *testing.T) { p.exec(t, withToken, open) })
		}
	})
}
