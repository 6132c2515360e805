package httpproxy_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"

	"varco.dev/internal/httpproxy"
	"varco.dev/internal/observe"
)

// within is how long a step of a test may take.
const within = 10 * time.Second

// world is a target, a proxy and its server.
type world struct {
	proxy   *httpproxy.Proxy
	config  httpproxy.Config
	to      httpproxy.Target
	h2      bool                                // of the target, for ordinary requests
	edit    func(r *http.Request) *http.Request // of what the proxy is asked
	before  func(http.ResponseWriter)           // of the answer
	front   *httptest.Server                    // with TLS and HTTP/2 if secure
	secure  bool
	metrics *observe.AccessMetrics // the server's handler is behind an access log, as those that serve are
	cut     chan error             // how Serve has panicked, or nil
}

// newWorld has a handler behind a proxy.
func newWorld(t testing.TB, target http.HandlerFunc, options ...func(*world)) *world {
	t.Helper()
	w := &world{config: httpproxy.Config{Log: slog.New(slog.DiscardHandler)}, cut: make(chan error, 100)}
	back := httptest.NewUnstartedServer(target)
	back.EnableHTTP2 = true
	back.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	back.StartTLS()
	t.Cleanup(back.Close)
	w.to = httpproxy.Target{Scheme: "https", Host: back.Listener.Addr().String()}
	for _, o := range options {
		o(w)
	}
	w.to.RoundTripper, w.to.Upgrade = transport(t, w.h2), transport(t, false)
	w.proxy = httpproxy.New(w.config)
	w.metrics = observe.NewAccessMetrics()
	w.front = httptest.NewUnstartedServer(observe.Access(w.config.Log, w.metrics, http.HandlerFunc(w.serve)))
	w.front.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	w.front.Config.Protocols = new(http.Protocols)
	w.front.Config.Protocols.SetHTTP1(true)
	w.front.Config.Protocols.SetUnencryptedHTTP2(true)
	w.front.Config.Protocols.SetHTTP2(true)
	if w.front.EnableHTTP2 = w.secure; w.secure {
		w.front.StartTLS()
	} else {
		w.front.Start()
	}
	t.Cleanup(w.front.Close)
	return w
}

func (w *world) serve(rw http.ResponseWriter, r *http.Request) {
	defer func() {
		e := recover()
		err, _ := e.(error)
		select {
		case w.cut <- err:
		default:
		}
		if e != nil {
			panic(e)
		}
	}()
	if w.edit != nil {
		r = w.edit(r)
	}
	if w.before != nil {
		w.before(rw)
	}
	w.proxy.Serve(rw, r, w.to)
}

func transport(t testing.TB, h2 bool) *http.Transport {
	tr := &http.Transport{
		DialContext:           httpproxy.BufferDial((&net.Dialer{}).DialContext),
		TLSClientConfig:       &tls.Config{InsecureSkipVerify: true},
		ForceAttemptHTTP2:     h2,
		DisableCompression:    true,
		ExpectContinueTimeout: within,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// dial opens a connection to the proxy's server.
func (w *world) dial(t testing.TB) (*net.TCPConn, *bufio.Reader) {
	t.Helper()
	c, err := net.DialTimeout("tcp", w.front.Listener.Addr().String(), within)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	c.SetDeadline(time.Now().Add(within))
	return c.(*net.TCPConn), bufio.NewReader(c)
}

// ask sends bytes and returns what comes back until the server closes.
func (w *world) ask(t testing.TB, request string) string {
	t.Helper()
	c, r := w.dial(t)
	send(t, c, request)
	b, err := io.ReadAll(r)
	if err != nil {
		t.Fatalf("after %q: %v", b, err)
	}
	return string(b)
}

func send(t testing.TB, c io.Writer, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// want reads a text.
func want(t testing.TB, r io.Reader, text string) {
	t.Helper()
	got := make([]byte, len(text))
	if n, err := io.ReadFull(r, got); string(got) != text {
		t.Fatalf("got %q and %v, want %q", got[:n], err, text)
	}
}

// answerTo reads an answer's header.
func answerTo(t testing.TB, r *bufio.Reader, method string) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(r, &http.Request{Method: method})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

// TestRequestLine wants paths and queries to reach the target as they were sent.
func TestRequestLine(t *testing.T) {
	seen := make(chan string, 1)
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) { seen <- r.RequestURI })
	for _, c := range []struct{ sent, want string }{
		{"/api/v1/x", ""},
		{"/api/v1/namespaces/a%2Fb/x", ""},
		{"/a//b/../c/./", ""},
		{"//x/y", ""},
		{"/?a=%2F&b=c+d&&x;y", ""},
		{"/?", ""},
		{"/%25/%2e%2e/", ""},
		{"/a!$&'()*+,;=:@-._~", ""},
		{"/x|y%2Fz", "/x%7Cy%2Fz"}, // which RFC 3986 does not allow
		{"/\xc3\xa9%2F[", "/%C3%A9%2F["},
		{"http://evil.example/a%2Fb?c", "/a%2Fb?c"},
		{"http://user:pass@evil.example/", "/"},
		{"x:https://evil.example/a", "/"},
	} {
		if c.want == "" {
			c.want = c.sent
		}
		got := w.ask(t, "GET "+c.sent+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
		if !strings.HasPrefix(got, "HTTP/1.1 200 ") {
			t.Errorf("%s: got %q", c.sent, got)
			continue
		}
		if got := <-seen; got != c.want {
			t.Errorf("%s: the target got %s, want %s", c.sent, got, c.want)
		}
	}
}

func TestWithPath(t *testing.T) {
	r := httptest.NewRequest("GET", "/before?q", nil)
	for _, c := range []struct{ path, want string }{
		{"/a%2Fb//..", "/a%2Fb//..?q"},
		{"/", "/?q"},
		{"/a b%2F", "/a%20b%2F?q"},
		{"", ""}, {"a", ""}, {"/%2", ""}, {"/%zz", ""},
	} {
		got, err := httpproxy.WithPath(r, c.path)
		switch {
		case c.want == "" && (err == nil || !strings.Contains(err.Error(), "cannot be asked for")):
			t.Errorf("%q: got %v, want an error", c.path, err)
		case c.want != "" && (err != nil || got.URL.RequestURI() != c.want):
			t.Errorf("%q: got %v and %v, want %s", c.path, got, err, c.want)
		}
	}
	if r.URL.Path != "/before" {
		t.Errorf("the request itself asks for %s now", r.URL.Path)
	}
}

// TestRequestHeader wants what is about one connection to stay there, and the rest to be passed on.
func TestRequestHeader(t *testing.T) {
	seen := make(chan http.Header, 1)
	w := newWorld(t, func(_ http.ResponseWriter, r *http.Request) {
		r.Header["Host"] = []string{r.Host}
		seen <- r.Header
	})
	for _, c := range []struct {
		name, sent string
		want       http.Header
	}{
		{"as it is", "Accept: a\r\nAccept: b\r\nX-y: \r\nForwarded: for=x\r\n", http.Header{
			"Accept": {"a", "b"}, "X-Y": {""}, "Forwarded": {"for=x"}}},
		{"of the connection", "Connection: X-Mine, keep-alive, close\r\nX-Mine: a\r\nKeep-Alive: a\r\nProxy-Authorization: a\r\n" +
			"Proxy-Connection: a\r\nTe: gzip\r\nUpgrade: websocket\r\nProxy-Authenticate: a\r\n", http.Header{}},
		{"trailers", "TE: gzip, Trailers;q=0.5\r\n", http.Header{"Te": {"trailers"}}},
		{"who else passed it on", "X-Forwarded-For: 192.0.2.1\r\nX-Forwarded-For: 192.0.2.2\r\n", http.Header{
			"X-Forwarded-For": {"192.0.2.1, 192.0.2.2, 127.0.0.1"}}},
		{"who asks", "User-Agent: me\r\n", http.Header{"User-Agent": {"me"}}},
		{"a wish for HTTP/2", "Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA\r\n", http.Header{}},
	} {
		w.ask(t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"+c.sent+"\r\n")
		if c.want["X-Forwarded-For"] == nil {
			c.want["X-Forwarded-For"] = []string{"127.0.0.1"}
		}
		c.want["Host"] = []string{w.to.Host}
		if diff := cmp.Diff(c.want, <-seen); diff != "" {
			t.Errorf("%s: -want +got:\n%s", c.name, diff)
		}
	}
}

// TestEdit wants the last word on the request, and a Host header of its own.
func TestEdit(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) { fmt.Fprint(rw, r.Host, r.Header["Authorization"]) },
		func(w *world) {
			w.to.HostHeader = "other.example"
			w.to.Edit = func(out *http.Request) { out.Header.Set("Authorization", "mine") }
			w.to.EditResponse = func(r *http.Response) error {
				if r.Request.URL.Path == "/no" {
					return httpproxy.Status(418, "", "no")
				}
				r.Header.Set("X-Edited", "yes")
				return nil
			}
		})
	got := w.ask(t, "GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nAuthorization: yours\r\n\r\n")
	if !strings.HasSuffix(got, "other.example[mine]") || !strings.Contains(got, "\r\nX-Edited: yes\r\n") {
		t.Errorf("got %q", got)
	}
	if got := w.ask(t, "GET /no HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 418 ") {
		t.Errorf("got %q", got)
	}
}

// TestAnswers wants answers on the wire as the target sent them.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		name, method string
		target       http.HandlerFunc
		want         string // lines that are there
		never        string // lines that are not
		body         string
	}{
		{"length", "GET", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "{}") },
			"HTTP/1.1 200 OK|Content-Length: 2", "Transfer-Encoding|Trailer", "{}"},
		{"no length", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.(http.Flusher).Flush()
			w.(http.Flusher).Flush()
			fmt.Fprint(w, strings.Repeat("x", 4096))
		}, "Transfer-Encoding: chunked", "Content-Length", "1000\r\n" + strings.Repeat("x", 4096) + "\r\n0\r\n\r\n"},
		{"empty", "GET", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(201) },
			"HTTP/1.1 201 Created|Content-Length: 0", "Transfer-Encoding", ""},
		{"no content", "DELETE", func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(204) },
			"HTTP/1.1 204 No Content", "Content-Length|Transfer-Encoding", ""},
		{"not modified", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Etag", `"a"`)
			w.WriteHeader(304)
		}, `HTTP/1.1 304 Not Modified|Etag: "a"`, "Transfer-Encoding", ""},
		{"head", "HEAD", func(w http.ResponseWriter, _ *http.Request) { w.Header().Set("Content-Length", "123") },
			"HTTP/1.1 200 OK|Content-Length: 123", "Transfer-Encoding", ""},
		{"redirect", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Location", "https://10.0.0.1/x")
			w.WriteHeader(302)
		}, "HTTP/1.1 302 Found|Location: https://10.0.0.1/x", "", ""},
		{"no type", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header()["Content-Type"] = nil
			fmt.Fprint(w, "<html>")
		}, "HTTP/1.1 200 OK", "Content-Type", "<html>"},
		{"of the connection", "GET", func(w http.ResponseWriter, _ *http.Request) {
			for _, k := range []string{"Keep-Alive", "Proxy-Authenticate", "Upgrade", "X-Mine", "Te"} {
				w.Header().Set(k, "a")
			}
			w.Header().Set("Connection", "x-mine")
			w.Header()["Set-Cookie"] = []string{"a", "b"}
		}, "Set-Cookie: a|Set-Cookie: b|Warning: 299 - ours|Warning: theirs", "Keep-Alive|Proxy-Authenticate|Upgrade|X-Mine|Te", ""},
		{"upgrade required", "GET", func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Connection", "Upgrade")
			w.Header().Set("Upgrade", "websocket")
			w.WriteHeader(426)
		}, "HTTP/1.1 426 Upgrade Required|Upgrade: websocket", "", ""},
		{"an error", "GET", func(w http.ResponseWriter, _ *http.Request) { http.Error(w, "no", 500) },
			"HTTP/1.1 500 Internal Server Error|Content-Length: 3", "", "no\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
				w.Header().Add("Warning", "theirs")
				c.target(w, r)
			}, func(w *world) {
				w.before = func(w http.ResponseWriter) { w.Header().Set("Warning", "299 - ours") }
			})
			head, body, _ := strings.Cut(w.ask(t, c.method+" / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), "\r\n\r\n")
			lines := strings.Split(head, "\r\n")
			for line := range strings.SplitSeq(c.want, "|") {
				if !slices.Contains(lines, line) {
					t.Errorf("%q is not in %q", line, lines)
				}
			}
			for name := range strings.SplitSeq(c.never, "|") {
				if name != "" && strings.Contains(head, "\r\n"+name+":") {
					t.Errorf("%s is in %q", name, lines)
				}
			}
			if body != c.body {
				t.Errorf("got the body %q, want %q", body, c.body)
			}
		})
	}
}

// TestConnectionIsKept wants one connection to serve many requests, with bodies and errors among them.
func TestConnectionIsKept(t *testing.T) {
	w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) { io.Copy(rw, r.Body) })
	c, r := w.dial(t)
	for i := range 5 {
		body := strings.Repeat("x", i)
		send(t, c, fmt.Sprintf("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\n\r\n%s", i, body))
		resp := answerTo(t, r, "POST")
		if got, err := io.ReadAll(resp.Body); string(got) != body || err != nil || resp.Close {
			t.Errorf("got %q, %v, and close is %v", got, err, resp.Close)
		}
	}
	if requests, upgrades := w.proxy.Open(); requests > 1 || upgrades != 0 {
		t.Errorf("%d requests and %d upgrades are open", requests, upgrades)
	}
}

// TestLongRunningAnswersAreNotMeasured wants an access log to be told.
func TestLongRunningAnswersAreNotMeasured(t *testing.T) {
	w := newWorld(t, func(http.ResponseWriter, *http.Request) {}, func(w *world) {
		w.edit = func(r *http.Request) *http.Request {
			if r.URL.Path == "/watch" {
				return httpproxy.LongRunning(r)
			}
			return r
		}
	})
	for _, path := range []string{"/watch", "/", "/watch"} {
		w.ask(t, "GET "+path+" HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	}
	w.front.Close()
	registry := prometheus.NewRegistry()
	registry.MustRegister(w.metrics)
	families, err := registry.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		if f.GetName() == "varco_http_request_duration_seconds" && f.GetMetric()[0].GetHistogram().GetSampleCount() != 1 {
			t.Errorf("got %v", f)
		}
	}
}

// TestConnectIsRefused has a client that wants a tunnel.
func TestConnectIsRefused(t *testing.T) {
	w := newWorld(t, func(http.ResponseWriter, *http.Request) { t.Error("the target was asked") })
	if got := w.ask(t, "CONNECT b:1 HTTP/1.1\r\nHost: b:1\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 501 ") {
		t.Errorf("got %q", got)
	}
}
