package origin_test

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"fmt"
	"io"
	"net/http"
	"net/http/cookiejar"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/gorilla/websocket"
	corev1 "k8s.io/api/core/v1"

	"varco.dev/internal/kubectlproxy/origin"
)

// mirror answers with what an app sees of a request.
func mirror(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s %s host=%s auth=%s proto=%s xfh=%s xfp=%s", r.Method, r.RequestURI, r.Host,
		r.Header.Get("Authorization"), r.Proto, r.Header.Get("X-Forwarded-Host"), r.Header.Get("X-Forwarded-Proto"))
}

func TestTunnel(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	s.web("web", mirror)
	for _, host := range []string{
		"80.web.shop.svc.localhost", "http.web.shop.svc.localhost", "web.shop.svc.localhost",
		"8080.web-0.shop.pod.localhost", "web.web-0.shop.pod.localhost", "web-0.shop.pod.localhost",
	} {
		s.wantMirror(host)
	}
	if n := s.counted("portforward"); n != 1 {
		t.Errorf("%d tunnels were opened to one pod, want 1", n)
	}
	if n := s.counted("websocket"); n != 1 {
		t.Errorf("%d of the tunnels were WebSockets, want 1", n)
	}
	s.wantMirror("80.web.shop.svc.lab-1.localhost")
	if n := s.counted("endpointslices"); n > 4 {
		t.Errorf("EndpointSlices were read %d times for four origins", n)
	}
}

// wantMirror checks that a request arrives byte for byte as the browser sent it.
func (s *stage) wantMirror(host string) {
	s.t.Helper()
	resp, got := s.get(host, "/a%2Fb//c/../d?x=%20", func(r *http.Request) { r.Header.Set("Authorization", "Bearer app") })
	at := host + s.port()
	want := "GET /a%2Fb//c/../d?x=%20 host=" + at + " auth=Bearer app proto=HTTP/1.1 xfh=" + at + " xfp=http"
	if diff := cmp.Diff(want, got); resp.StatusCode != 200 || diff != "" {
		s.t.Errorf("%s: %d (-want +got):\n%s", host, resp.StatusCode, diff)
	}
}

func TestCredentialStays(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	var mu sync.Mutex
	var seen []string
	s.web("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen = append(seen, fmt.Sprint(r.Header))
	}))
	s.get("80.web.shop.svc.localhost", "/")
	s.setRefuse(forbidTunnels)
	s.get("80.web.shop.svc.localhost", "/")
	if len(seen) != 2 || strings.Contains(fmt.Sprint(seen), kubeToken) {
		t.Errorf("the app has seen %d requests: %v", len(seen), seen)
	}
}

func TestErrors(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	s.web("web", mirror)
	s.service("dns", corev1.ServicePort{Name: "dns", Port: 53, Protocol: corev1.ProtocolUDP})
	s.service("empty", corev1.ServicePort{Port: 80})
	s.service("two", corev1.ServicePort{Name: "a", Port: 80})
	s.services["shop/two"].Spec.Ports = append(s.services["shop/two"].Spec.Ports, corev1.ServicePort{Name: "b", Port: 81})
	s.services["shop/far"] = &corev1.Service{Spec: corev1.ServiceSpec{Type: corev1.ServiceTypeExternalName, ExternalName: "example.com"}}
	s.pod("dead", 80, "")
	s.wantStatus("80.none.shop.svc.localhost", 404, "none")
	s.wantStatus("81.web.shop.svc.localhost", 404, "80 (http)")
	s.wantStatus("two.shop.svc.localhost", 404, "80 (a), 81 (b)", ".two.shop.svc.localhost")
	s.wantStatus("53.dns.shop.svc.localhost", 400, "UDP")
	s.wantStatus("80.empty.shop.svc.localhost", 503, "no pod behind it is ready", "kubectl get endpointslices --namespace shop")
	s.wantStatus("80.far.shop.svc.localhost", 400, "ExternalName", "example.com")
	s.wantStatus("80.web.shop.svc.nowhere.localhost", 404, "nowhere")
	s.wantStatus("80.gone.shop.pod.localhost", 404, "gone")
	s.wantStatus("nope.web-0.shop.pod.localhost", 404, "8080 (web)")
	s.wantStatus("80.dead.shop.pod.localhost", 502, "connection refused")
	if n := s.counted("proxy"); n != 0 {
		t.Errorf("%d requests went over services/proxy", n)
	}
}

func TestBodies(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	s.web("echo", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	}))
	sent := make([]byte, 8<<20)
	rand.Read(sent)
	for _, known := range []bool{true, false} {
		body := io.Reader(bytes.NewReader(sent))
		if !known {
			body = io.MultiReader(body) // chunked
		}
		_, got := s.do(s.client(), http.MethodPost, "80.echo.shop.svc.localhost", "/", body)
		if sha256.Sum256([]byte(got)) != sha256.Sum256(sent) {
			t.Errorf("length known %v: %d bytes came back for %d, or others", known, len(got), len(sent))
		}
	}
}

func TestWebSocket(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	echo := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		conn, err := (&websocket.Upgrader{}).Upgrade(w, r, nil) // its default is Origin == Host
		if err != nil {
			return
		}
		defer conn.Close()
		for {
			kind, text, err := conn.ReadMessage()
			if err != nil || conn.WriteMessage(kind, text) != nil {
				return
			}
		}
	})
	s.web("chat", echo)
	at := s.app(echo, withTLS)
	s.pod("safe-0", 8443, at)
	s.service("safe", corev1.ServicePort{Name: "https", Port: 443}, "safe-0")
	for _, host := range []string{"80.chat.shop.svc.localhost", "443.safe.shop.svc.localhost"} {
		dialer := websocket.Dialer{NetDialContext: s.dial}
		conn, _, err := dialer.Dial("ws://"+host+s.port()+"/", http.Header{"Origin": {"http://" + host + s.port()}})
		if err != nil {
			t.Fatalf("%s: %v", host, err)
		}
		for i := range 10 {
			word := strings.Repeat(fmt.Sprint(i), 10000)
			if err := conn.WriteMessage(websocket.TextMessage, []byte(word)); err != nil {
				t.Fatal(err)
			}
			if _, got, err := conn.ReadMessage(); err != nil || string(got) != word {
				t.Fatalf("%s: %q, %v", host, got, err)
			}
		}
		conn.Close()
	}
}

func withTLS(app *httptest.Server) {
	app.EnableHTTP2 = true
	app.StartTLS()
}

func TestEvents(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	next := make(chan string)
	s.web("news", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/event-stream")
		w.(http.Flusher).Flush()
		for line := range next {
			fmt.Fprintf(w, "data: %s\n\n", line)
			w.(http.Flusher).Flush()
		}
	}))
	resp, err := s.client().Get("http://80.news.shop.svc.localhost" + s.port() + "/")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewReader(resp.Body)
	for i := range 5 {
		next <- fmt.Sprint(i)
		got, err := lines.ReadString('\n')
		if err != nil || got != fmt.Sprintf("data: %d\n", i) {
			t.Fatalf("event %d: %q, %v", i, got, err)
		}
		lines.ReadString('\n')
	}
	close(next)
}

func TestGRPC(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	grpc := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "application/grpc")
		w.Header().Set("Trailer", "Grpc-Status")
		w.(http.Flusher).Flush()
		io.Copy(flushing{w}, r.Body)
		fmt.Fprintf(w, "%s te=%s", r.Proto, r.Header.Get("Te"))
		w.Header().Set("Grpc-Status", "0")
		w.Header().Set(http.TrailerPrefix+"Grpc-Message", "fine")
	})
	h2c := func(app *httptest.Server) {
		app.Config.Protocols = new(http.Protocols)
		app.Config.Protocols.SetUnencryptedHTTP2(true)
	}
	s.web("greeter", grpc, h2c)
	transport := &http.Transport{DialContext: s.dial, Protocols: new(http.Protocols)}
	transport.Protocols.SetUnencryptedHTTP2(true)
	defer transport.CloseIdleConnections()
	body, write := io.Pipe()
	req, _ := http.NewRequest(http.MethodPost, "http://80.greeter.shop.svc.localhost"+s.port()+"/greet", body)
	req.Header.Set("Content-Type", "application/grpc")
	req.Header.Set("Te", "trailers")
	resp, err := transport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for i := range 3 { // both directions at once
		fmt.Fprintf(write, "message%d", i)
		got := make([]byte, 8)
		if _, err := io.ReadFull(resp.Body, got); err != nil || string(got) != fmt.Sprintf("message%d", i) {
			t.Fatalf("message %d: %q, %v", i, got, err)
		}
	}
	write.Close()
	rest, err := io.ReadAll(resp.Body)
	if err != nil || string(rest) != "HTTP/2.0 te=trailers" {
		t.Errorf("%q, %v", rest, err)
	}
	if resp.Trailer.Get("Grpc-Status") != "0" || resp.Trailer.Get("Grpc-Message") != "fine" {
		t.Errorf("trailers: %v", resp.Trailer)
	}
}

type flushing struct{ http.ResponseWriter }

func (f flushing) Write(p []byte) (int, error) {
	n, err := f.ResponseWriter.Write(p)
	f.ResponseWriter.(http.Flusher).Flush()
	return n, err
}

func TestCookies(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	evil := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Add("Set-Cookie", "session=evil; Domain=shop.svc.localhost; Path=/")
		w.Header().Add("Set-Cookie", "wide=evil; Path=/; domain=.localhost; HttpOnly")
		w.Header().Add("Set-Cookie", "own=evil; Path=/")
	})
	s.web("evil", evil)
	s.web("bank", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { fmt.Fprint(w, r.Header["Cookie"]) }))
	s.web("self", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, r.Header["Cookie"])
		w.Header().Add("Set-Cookie", "a=1; Path=/")
	}))
	client := s.client()
	client.Jar, _ = cookiejar.New(nil)
	resp, _ := s.do(client, "GET", "80.evil.shop.svc.localhost", "/", nil)
	want := []string{"session=evil; Path=/", "wide=evil; Path=/; HttpOnly", "own=evil; Path=/"}
	if diff := cmp.Diff(want, resp.Header["Set-Cookie"]); diff != "" {
		t.Errorf("cookies (-want +got):\n%s", diff)
	}
	if _, got := s.do(client, "GET", "80.bank.shop.svc.localhost", "/", nil); got != "[]" {
		t.Errorf("another Service was sent %s", got)
	}
	if got := client.Jar.Cookies(parsed(t, "http://80.evil.shop.svc.localhost"+s.port()+"/")); len(got) != 3 {
		t.Errorf("the Service itself would be sent %v", got)
	}
}

func TestLocation(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	s.web("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header()["Location"] = []string{r.URL.Query().Get("to")}
		w.WriteHeader(http.StatusFound)
	}))
	for to, want := range map[string]string{
		"/login":                                     "/login",
		"next?x=1":                                   "next?x=1",
		"http://web.shop.svc/a%2Fb?x=1#y":            "http://80.web.shop.svc.localhost" + s.port() + "/a%2Fb?x=1#y",
		"http://web.shop.svc.cluster.local:80/a":     "http://80.web.shop.svc.localhost" + s.port() + "/a",
		"http://web/a":                               "http://80.web.shop.svc.localhost" + s.port() + "/a",
		"https://web.shop.svc/a":                     "http://443.web.shop.svc.localhost" + s.port() + "/a",
		"https://login.auth.svc.cluster.local/a":     "http://443.login.auth.svc.localhost" + s.port() + "/a",
		"http://login.auth.svc:9000/a":               "http://9000.login.auth.svc.localhost" + s.port() + "/a",
		"https://example.com/a":                      "https://example.com/a",
		"ftp://web.shop.svc/a":                       "ftp://web.shop.svc/a",
		"http://80.web.shop.svc.localhost:8001/same": "http://80.web.shop.svc.localhost:8001/same",
	} {
		resp, _ := s.get("80.web.shop.svc.localhost", "/?to="+queryEscape(to))
		if got := resp.Header.Get("Location"); got != want {
			t.Errorf("Location %q became %q, want %q", to, got, want)
		}
	}
	resp, _ := s.get("8080.web-0.shop.pod.localhost", "/?to="+queryEscape("http://web-0.shop.svc:8080/a"))
	if got, want := resp.Header.Get("Location"), "http://8080.web-0.shop.svc.localhost"+s.port()+"/a"; got != want {
		t.Errorf("a pod that names a Service of the same name leads to %q, want %q", got, want)
	}
}

func TestParallel(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	const clients = 100
	var inside sync.WaitGroup
	inside.Add(clients) // the app answers when all are there
	s.web("web", http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		inside.Done()
		inside.Wait()
		fmt.Fprint(w, r.URL.Path)
	}))
	var all sync.WaitGroup
	client := s.client()
	for i := range clients {
		all.Go(func() {
			resp, err := client.Get(fmt.Sprintf("http://80.web.shop.svc.localhost%s/%d", s.port(), i))
			if err != nil {
				t.Error(err)
				return
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); err != nil || string(got) != fmt.Sprintf("/%d", i) {
				t.Errorf("request %d: %q, %v", i, got, err)
			}
		})
	}
	all.Wait()
	if n := s.counted("portforward"); n != 1 {
		t.Errorf("%d tunnels, want 1", n)
	}
}

func TestTLSApp(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	at := s.app(mirror, withTLS)
	s.pod("safe-0", 8443, at)
	s.service("safe", corev1.ServicePort{Name: "x", Port: 443}, "safe-0")
	resp, got := s.get("443.safe.shop.svc.localhost", "/x")
	if resp.StatusCode != 200 || !strings.Contains(got, "proto=HTTP/2.0") || !strings.Contains(got, "host=443.safe.shop.svc.localhost"+s.port()) {
		t.Errorf("%d: %s", resp.StatusCode, got)
	}
}

func TestPlainSPDY(t *testing.T) {
	s := newStage(t, origin.ModeTunnel)
	s.web("web", mirror)
	s.setRefuse(func(r *http.Request) error {
		if r.Header.Get("Upgrade") == "websocket" {
			return forbidTunnels(r)
		}
		return nil
	})
	s.wantMirror("80.web.shop.svc.localhost")
	if ws, all := s.counted("websocket"), s.counted("portforward"); ws != 0 || all != 1 {
		t.Errorf("%d tunnels, %d of them by WebSocket, want one by SPDY", all, ws)
	}
}

func TestStop(t *testing.T) {
	s := newStage(t, origin.ModeAuto)
	s.web("web", mirror)
	s.wantMirror("80.web.shop.svc.localhost")
	if open, conns := s.origins.Open(); open != 1 || conns != 1 {
		t.Errorf("%d tunnels with %d connections, want 1 and 1", open, conns)
	}
	s.stop()
	s.stop = func() {}
	if open, conns := s.origins.Open(); open != 0 || conns != 0 {
		t.Errorf("after Run: %d tunnels with %d connections", open, conns)
	}
	w := httptest.NewRecorder()
	at, _, _ := origin.Parse("80.web.shop.svc.localhost")
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	s.origins.Serve(w, httptest.NewRequestWithContext(ctx, "GET", "http://80.web.shop.svc.localhost/", nil), at)
	if w.Code != 503 {
		t.Errorf("after Run: %d %s, want 503", w.Code, w.Body)
	}
}
