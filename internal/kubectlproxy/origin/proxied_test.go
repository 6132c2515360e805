package origin_test

import (
	"compress/gzip"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/httpproxy"
	"varco.dev/internal/kubectlproxy/origin"
)

// backend is an app that tells which of the client's headers arrived.
func backend(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s auth=%q backend=%q as=%q xfh=%s", r.Method, r.RequestURI, r.Header.Get("Authorization"),
		r.Header.Get("X-Backend-Authorization"), r.Header.Get("Impersonate-User"), r.Header.Get("X-Forwarded-Host"))
}

func TestFallback(t *testing.T) {
	const host = "80.web.shop.svc.localhost"
	refusals := map[string]func(*http.Request) error{
		"forbidden":           forbidTunnels,
		"unknown subresource": onTunnels(httpproxy.Status(404, metav1.StatusReasonNotFound, "the server could not find the requested resource")),
		"no upgrades":         onTunnels(httpproxy.Status(400, metav1.StatusReasonBadRequest, "Upgrade request required")),
		"not implemented":     onTunnels(httpproxy.Status(501, "", "no")),
	}
	for name, refuse := range refusals {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, origin.ModeAuto)
			s.web("web", backend)
			s.setRefuse(refuse)
			for range 2 {
				_, got := s.get(host, "/a/b?x=1", func(r *http.Request) {
					r.Header.Set("Authorization", "Bearer app")
					r.Header.Set("Impersonate-User", "admin")
				})
				want := `GET /a/b?x=1 auth="" backend="Bearer app" as="" xfh=` + host + s.port()
				if diff := cmp.Diff(want, got); diff != "" {
					t.Errorf("(-want +got):\n%s", diff)
				}
			}
			if proxied := s.counted("proxy"); proxied != 2 {
				t.Errorf("%d requests went over services/proxy, want 2", proxied)
			}
		})
	}
}

// onTunnels refuses port forwarding.
func onTunnels(err error) func(*http.Request) error {
	return func(r *http.Request) error {
		if strings.HasSuffix(r.URL.Path, "/portforward") {
			return err
		}
		return nil
	}
}

func TestRefusalIsRemembered(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	s.web("web", backend)
	var tries int
	s.setRefuse(func(r *http.Request) error {
		err := forbidTunnels(r)
		if err != nil {
			tries++ // requests are made one after the other
		}
		return err
	})
	for range 5 {
		s.get("80.web.shop.svc.localhost", "/")
	}
	if tries != 2 { // WebSocket and SPDY
		t.Errorf("a tunnel was tried %d times, want 2", tries)
	}
}

func TestModes(t *testing.T) {
	tunnel := newStage(t, origin.ModeTunnel)
	tunnel.web("web", backend)
	tunnel.service("bare", corev1.ServicePort{Port: 80}, "x")
	tunnel.slices["shop/bare"][0].Endpoints[0].TargetRef = nil
	tunnel.setRefuse(forbidTunnels)
	tunnel.wantStatus("80.web.shop.svc.localhost", 403, "pods/portforward")
	tunnel.wantStatus("80.bare.shop.svc.localhost", 503, "endpoints are no pods", "--services=auto")
	if n := tunnel.counted("proxy"); n != 0 {
		t.Errorf("mode tunnel sent %d requests over services/proxy", n)
	}
	proxied := newStage(t, origin.ModeProxy)
	proxied.web("web", backend)
	proxied.get("80.web.shop.svc.localhost", "/")
	if n, tunnels := proxied.counted("proxy"), proxied.counted("portforward"); n != 1 || tunnels != 0 {
		t.Errorf("mode proxy sent %d requests over services/proxy, and opened %d tunnels", n, tunnels)
	}
}

func TestServiceWithoutPods(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	s.web("bare", backend)
	s.slices["shop/bare"][0].Endpoints[0].TargetRef = nil
	if _, got := s.get("80.bare.shop.svc.localhost", "/x"); !strings.HasPrefix(got, "GET /x ") {
		t.Errorf("got %s", got)
	}
}

func TestServicesUnreadable(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	s.web("web", backend)
	s.setRefuse(func(r *http.Request) error {
		if !strings.Contains(r.URL.Path, "/proxy") {
			return httpproxy.Status(403, metav1.StatusReasonForbidden, "services is forbidden")
		}
		return nil
	})
	if _, got := s.get("80.web.shop.svc.localhost", "/x"); !strings.HasPrefix(got, "GET /x ") {
		t.Errorf("got %s", got)
	}
}

func TestProxiedPath(t *testing.T) {
	s := newStage(t, origin.ModeProxy)
	s.web("web", backend)
	for _, path := range []string{"/../../../secrets", "/a/..", "/%2e%2e/secrets", "/a%2f..%2fb", "/%252e%252e/x", "/..%5cx"} {
		resp, text := s.get("80.web.shop.svc.localhost", path)
		if resp.StatusCode != 400 || !strings.Contains(text, "lead out of services/proxy") {
			t.Errorf("%s: %d %s", path, resp.StatusCode, text)
		}
	}
	if _, got := s.get("80.web.shop.svc.localhost", "/a..b/...?x=../.."); !strings.HasPrefix(got, "GET /a..b/...?x=../.. ") {
		t.Errorf("harmless dots: %s", got)
	}
}

func TestProxiedPage(t *testing.T) {
	const page = `<html><a href="/a/b">a</a><img src="/"><script src='/x.js'></script><a href="rel">r</a><p>/a "/b" ü</p></html>`
	s := newStage(t, origin.ModeProxy)
	s.web("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		if strings.Contains(r.Header.Get("Accept-Encoding"), "gzip") {
			w.Header().Set("Content-Encoding", "gzip")
			gz := gzip.NewWriter(w)
			defer gz.Close()
			fmt.Fprint(gz, page)
			return
		}
		fmt.Fprint(w, page)
	}))
	want := strings.ReplaceAll(page, `'/x.js'`, `"/x.js"`) // by the API server
	for _, encoding := range []string{"", "gzip", "identity"} {
		resp, got := s.get("80.web.shop.svc.localhost", "/", func(r *http.Request) {
			if encoding != "" {
				r.Header.Set("Accept-Encoding", encoding)
			}
		})
		if diff := cmp.Diff(want, got); diff != "" || resp.Header.Get("Content-Encoding") != "" {
			t.Errorf("Accept-Encoding %q: encoding %q, (-want +got):\n%s", encoding, resp.Header.Get("Content-Encoding"), diff)
		}
	}
}

func TestProxiedLocation(t *testing.T) {
	s := newStage(t, origin.ModeProxy)
	s.web("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Location"] = []string{r.URL.Query().Get("to")}
		w.WriteHeader(http.StatusFound)
	}))
	for to, want := range map[string]string{
		"/":                          "/",
		"/login?x=1#y":               "/login?x=1#y",
		"next":                       "next",
		"https://example.com":        "https://example.com",
		"http://other.shop.svc:81/a": "http://81.other.shop.svc.localhost" + s.port() + "/a",
	} {
		resp, _ := s.get("80.web.shop.svc.localhost", "/?to="+queryEscape(to))
		if got := resp.Header.Get("Location"); got != want {
			t.Errorf("Location %q became %q, want %q", to, got, want)
		}
	}
}

func TestProxiedWebSocket(t *testing.T) {
	s := newStage(t, origin.ModeProxy)
	s.web("chat", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}).Upgrade(w, r, nil)
		if err != nil {
			return
		}
		defer conn.Close()
		kind, text, err := conn.ReadMessage()
		if err == nil {
			conn.WriteMessage(kind, text)
		}
	}))
	dialer := websocket.Dialer{NetDialContext: s.dial}
	conn, _, err := dialer.Dial("ws://80.chat.shop.svc.localhost"+s.port()+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	conn.WriteMessage(websocket.TextMessage, []byte("hello"))
	if _, got, err := conn.ReadMessage(); err != nil || string(got) != "hello" {
		t.Errorf("%q, %v", got, err)
	}
}

func TestProxiedGRPC(t *testing.T) {
	s := newStage(t, origin.ModeProxy)
	s.web("web", backend)
	resp, text := s.get("80.web.shop.svc.localhost", "/", func(r *http.Request) { r.Header.Set("Content-Type", "application/grpc") })
	if resp.StatusCode != 501 || !strings.Contains(text, "gRPC needs a tunnel") {
		t.Errorf("%d %s", resp.StatusCode, text)
	}
}

// TestProxiedAbsolute asks for a host without a path, as a client of a proxy may.
func TestProxiedAbsolute(t *testing.T) {
	s := newStage(t, origin.ModeProxy)
	s.web("web", backend)
	conn, err := net.Dial("tcp", s.server.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprint(conn, "GET http://80.web.shop.svc.localhost HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	if got, err := io.ReadAll(conn); err != nil || !strings.Contains(string(got), "GET / ") {
		t.Errorf("%s, %v", got, err)
	}
}
