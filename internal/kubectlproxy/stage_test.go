package kubectlproxy_test

import (
	"bufio"
	"context"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	"k8s.io/kubectl/pkg/proxy"

	"varco.dev/internal/kubectlproxy"
	"varco.dev/internal/kubectlproxy/cluster"
	"varco.dev/internal/kubectlproxy/guard"
	"varco.dev/internal/nettest"
)

// patience is how long a test waits for what must come.
const patience = 10 * time.Second

// stage is an API server with kubectl proxy and ours before it, both with the same kubeconfig and the same flags.
type stage struct {
	t      *testing.T
	api    *apiServer
	file   *clientcmdapi.Config
	path   string // of the kubeconfig, which has one context, "main", with the token "secret"
	config kubectlproxy.Config
	append bool // the original's --append-server-path, which is off by default
	log    *nettest.Journal

	original, ours server
	page           string // the second line of our output, if there is one
	stop           func() error
}

// newStage starts all three, after these changes.
func newStage(t *testing.T, change ...func(*stage)) *stage {
	t.Helper()
	s := prepare(t, change...)
	s.startOriginal()
	s.startOurs()
	return s
}

func prepare(t *testing.T, change ...func(*stage)) *stage {
	t.Helper()
	s := &stage{t: t, api: newAPIServer(t), file: clientcmdapi.NewConfig(), log: &nettest.Journal{}}
	s.path = filepath.Join(t.TempDir(), "config")
	s.add("main", s.api, "secret")
	s.file.CurrentContext = "main"
	s.config = kubectlproxy.Config{
		Address: "127.0.0.1", APIPrefix: "/", StaticPrefix: "/static/", Log: slog.New(slog.NewTextHandler(s.log, nil)),
		Guard: guard.Config{
			AcceptPaths: guard.DefaultAcceptPaths, RejectPaths: guard.DefaultRejectPaths,
			AcceptHosts: guard.DefaultAcceptHosts, RejectMethods: guard.DefaultRejectMethods,
		},
		Clusters: cluster.Config{
			Load: func(context string) clientcmd.ClientConfig {
				return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
					&clientcmd.ClientConfigLoadingRules{ExplicitPath: s.path}, &clientcmd.ConfigOverrides{CurrentContext: context})
			},
			Files:      func() []string { return []string{s.path} },
			ServerPath: true, ClientAuthorization: cluster.IgnoreAuthorization,
		},
		HeaderTimeout: kubectlproxy.DefaultHeaderTimeout, IdleTimeout: kubectlproxy.DefaultIdleTimeout,
		BodyTimeout: kubectlproxy.DefaultBodyTimeout, DrainTimeout: time.Second,
		MaxHeaderBytes: kubectlproxy.DefaultMaxHeaderBytes, MaxConnections: kubectlproxy.DefaultMaxConnections,
		Version: "v1.2.3",
	}
	for _, f := range change {
		f(s)
	}
	s.save()
	return s
}

// add writes a context, with a cluster and a user of the same name.
func (s *stage) add(name string, a *apiServer, token string) {
	authority := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
	s.file.Clusters[name] = &clientcmdapi.Cluster{Server: a.URL, CertificateAuthorityData: authority}
	s.file.AuthInfos[name] = &clientcmdapi.AuthInfo{Token: token}
	s.file.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
}

func (s *stage) save() {
	s.t.Helper()
	if err := clientcmd.WriteToFile(*s.file, s.path); err != nil {
		s.t.Fatal(err)
	}
}

func (s *stage) rest() *rest.Config {
	s.t.Helper()
	c, err := s.config.Clusters.Load("").ClientConfig()
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// startOriginal starts what kubectl proxy makes of these flags.
func (s *stage) startOriginal() {
	s.t.Helper()
	slash := func(prefix string) string { return strings.TrimSuffix(prefix, "/") + "/" } // ProxyOptions.Complete
	c := s.config
	var filter *proxy.FilterServer
	if g := c.Guard; !g.Disabled {
		filter = &proxy.FilterServer{
			AcceptPaths: proxy.MakeRegexpArrayOrDie(g.AcceptPaths), RejectPaths: proxy.MakeRegexpArrayOrDie(g.RejectPaths),
			AcceptHosts: proxy.MakeRegexpArrayOrDie(g.AcceptHosts), RejectMethods: proxy.MakeRegexpArrayOrDie(g.RejectMethods),
		}
	}
	p, err := proxy.NewServer(c.StaticDir, slash(c.APIPrefix), slash(c.StaticPrefix), filter, s.rest(), 0, s.append)
	if err != nil {
		s.t.Fatal(err)
	}
	listener, err := p.Listen("127.0.0.1", 0)
	if err != nil {
		s.t.Fatal(err)
	}
	s.t.Cleanup(func() { listener.Close() })
	go p.ServeOnListener(listener)
	s.original = server{"tcp", listener.Addr().String()}
}

// startOurs runs the proxy until stop is called or the test ends, and reads where it serves.
func (s *stage) startOurs() {
	s.t.Helper()
	out, in := io.Pipe()
	s.config.Out = in
	p, err := kubectlproxy.New(s.config)
	if err != nil {
		s.t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() {
		err := p.Run(ctx)
		in.CloseWithError(fmt.Errorf("the proxy has ended: %v", err))
		ended <- err
	}()
	s.stop = sync.OnceValue(func() error { cancel(); return <-ended })
	s.t.Cleanup(func() {
		if err := s.stop(); err != nil {
			s.t.Errorf("Run ended with %v", err)
		}
	})
	lines := bufio.NewReader(out)
	s.ours = serverOf(s.t, s.line(lines))
	if s.config.RequireToken || s.config.UI {
		s.page = s.line(lines)
	}
	go io.Copy(io.Discard, lines)
}

func (s *stage) line(from *bufio.Reader) string {
	s.t.Helper()
	line, err := from.ReadString('\n')
	if err != nil {
		s.t.Fatal(err)
	}
	return line
}

// runs returns the error of a proxy that cannot start.
func (s *stage) runs() error {
	s.config.Out = io.Discard
	p, err := kubectlproxy.New(s.config)
	if err != nil {
		return err
	}
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	return p.Run(ctx)
}

// expect sends the same bytes to both, and compares their answers in the form of answer.String.
func (s *stage) expect(raw, original, ours string) {
	s.t.Helper()
	if got := s.original.send(s.t, raw).String(); got != original {
		s.t.Errorf("kubectl proxy answers %q\nto %q,\nwant %q: has it changed?", got, raw, original)
	}
	if got := s.ours.send(s.t, raw).String(); got != ours {
		s.t.Errorf("got %q\nto %q,\nwant %q", got, raw, ours)
	}
}

// both sends the same bytes to both, and returns what the API server has seen of them.
func (s *stage) both(raw string) (original, ours *http.Request) {
	s.t.Helper()
	s.original.send(s.t, raw)
	original = s.api.take(s.t)
	s.ours.send(s.t, raw)
	return original, s.api.take(s.t)
}

// apiServer is an API server as far as a proxy can tell. It answers with the method and the request's target.
type apiServer struct {
	*httptest.Server
	mu     sync.Mutex
	tokens []string // that are accepted; nil: nobody is asked
	last   *http.Request
	answer http.HandlerFunc // in place of the echo
}

func newAPIServer(t *testing.T) *apiServer {
	a := &apiServer{}
	a.Server = httptest.NewUnstartedServer(a)
	a.EnableHTTP2 = true
	a.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	a.StartTLS()
	t.Cleanup(func() { a.CloseClientConnections(); a.Close() })
	return a
}

func (a *apiServer) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	a.last = r
	answer, tokens := a.answer, a.tokens
	a.mu.Unlock()
	token := strings.TrimPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case tokens != nil && !slices.Contains(tokens, token):
		http.Error(w, "Unauthorized", http.StatusUnauthorized)
	case answer != nil:
		answer(w, r)
	default:
		if _, err := io.Copy(io.Discard, r.Body); err == nil {
			fmt.Fprintf(w, "%s %s", r.Method, r.RequestURI)
		}
	}
}

// accept has only these tokens accepted from now on.
func (a *apiServer) accept(tokens ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens = tokens
}

// answers has requests answered so from now on.
func (a *apiServer) answers(f http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.answer = f
}

// take returns the last request, once.
func (a *apiServer) take(t *testing.T) *http.Request {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last == nil {
		t.Fatal("the API server has got nothing")
	}
	r := a.last
	a.last = nil
	return r
}

// untouched fails the test if a request has come.
func (a *apiServer) untouched(t *testing.T) {
	t.Helper()
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.last != nil {
		t.Errorf("the API server has got %s %s", a.last.Method, a.last.RequestURI)
	}
}

// server is where a proxy serves.
type server struct{ network, address string }

// port returns the port of a TCP server, with a colon before.
func (v server) port() string { return v.address[strings.LastIndex(v.address, ":"):] }

func (v server) url(path string) string { return "http://" + v.address + path }

// send sends bytes on a connection of their own and reads the answer to its end.
func (v server) send(t *testing.T, raw string) answer {
	t.Helper()
	w := v.open(t, raw)
	defer w.Close()
	return w.answer(t)
}

// open sends bytes on a connection that stays open.
func (v server) open(t *testing.T, raw string) *wire {
	t.Helper()
	conn, err := net.Dial(v.network, v.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	return newWire(t, conn, raw)
}

// wire is a connection to a proxy.
type wire struct {
	net.Conn
	in     *bufio.Reader
	method string
}

func newWire(t *testing.T, conn net.Conn, raw string) *wire {
	t.Helper()
	conn.SetDeadline(time.Now().Add(patience))
	if _, err := io.WriteString(conn, raw); err != nil {
		t.Fatal(err)
	}
	method, _, _ := strings.Cut(raw, " ")
	return &wire{conn, bufio.NewReader(conn), method}
}

// header reads an answer as far as its body.
func (w *wire) header(t *testing.T) *http.Response {
	t.Helper()
	resp, err := http.ReadResponse(w.in, &http.Request{Method: w.method})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func (w *wire) answer(t *testing.T) answer {
	t.Helper()
	resp, err := http.ReadResponse(w.in, &http.Request{Method: w.method})
	if err != nil {
		return answer{Err: err}
	}
	body, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, string(body), err}
}

// answer is what came back.
type answer struct {
	Code   int
	Header http.Header
	Body   string
	Err    error // why it has no end
}

// String is short: "200 the body", "301 to /path", "403 Status Forbidden".
func (a answer) String() string {
	switch to := a.Header.Get("Location"); {
	case a.Err != nil:
		return fmt.Sprintf("%d and then %v", a.Code, a.Err)
	case to != "":
		return fmt.Sprintf("%d to %s", a.Code, to)
	case a.status().Kind == "Status":
		return fmt.Sprintf("%d Status %s", a.Code, a.status().Reason)
	}
	return fmt.Sprintf("%d %s", a.Code, strings.TrimSpace(a.Body))
}

// status is the body as a Kubernetes status; it has no Kind if it is none.
func (a answer) status() (s metav1.Status) {
	if a.Header.Get("Content-Type") == "application/json" {
		_ = json.Unmarshal([]byte(a.Body), &s)
	}
	return s
}

// request writes a request for the host localhost, unless a header says otherwise.
func request(method, target, body string, headers ...string) string {
	lines := []string{method + " " + target + " HTTP/1.1"}
	if !slices.ContainsFunc(headers, func(h string) bool { return strings.HasPrefix(h, "Host:") }) {
		lines = append(lines, "Host: localhost")
	}
	lines = append(lines, headers...)
	if body != "" {
		lines = append(lines, fmt.Sprintf("Content-Length: %d", len(body)))
	}
	return strings.Join(lines, "\r\n") + "\r\n\r\n" + body
}

func get(target string, headers ...string) string { return request("GET", target, "", headers...) }

func post(target string, headers ...string) string { return request("POST", target, "{}", headers...) }
