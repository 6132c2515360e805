package server_test

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/rest"

	"varco.dev/internal/apiserverproxy/server"
)

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &authority{c, key, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})}
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// sign returns a certificate and its key, in PEM.
func (a *authority) sign(t testing.TB, subject pkix.Name, life time.Duration) (certPEM, keyPEM []byte) {
	t.Helper()
	key := newKey(t)
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(life),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		DNSNames:    []string{"localhost"}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.certificate, key.Public(), a.key)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: keyDER})
}

func (a *authority) pair(t testing.TB, subject pkix.Name) *tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(a.sign(t, subject, time.Hour))
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.certificate)
	return p
}

// seen is a request as the API server got it.
type seen struct {
	Method, Path, Proto, Host string
	Header                    http.Header
	Trailer                   http.Header
	Peer                      string // common name of the client certificate; empty: none
	Conn                      string // remote address: which connection it came on
	Body                      string
	Broken                    bool // the body did not come to its end
}

// api is a fake API server: it answers reviews and records all else.
type api struct {
	*httptest.Server
	clients, proxies *authority // of certificates that it trusts

	mu      sync.Mutex // guards the fields below
	seen    []seen
	tokens  map[string]authnv1.UserInfo
	allowed func(authzv1.SubjectAccessReviewSpec) bool
	reviews []authzv1.SubjectAccessReviewSpec
	asked   int    // TokenReviews
	account string // the Authorization that reviews came with
	forbid  bool   // reviews
	config  map[string]string
	handle  http.HandlerFunc // all else; nil: 200 and the path
}

func newAPI(t testing.TB, clients, proxies *authority) *api {
	t.Helper()
	a := &api{clients: clients, proxies: proxies, tokens: map[string]authnv1.UserInfo{}, config: map[string]string{
		"client-ca-file": string(clients.pem), "requestheader-client-ca-file": string(proxies.pem),
		"requestheader-username-headers": `["X-Remote-User"]`, "requestheader-uid-headers": `["X-Remote-Uid"]`,
		"requestheader-group-headers": `["X-Remote-Group"]`, "requestheader-extra-headers-prefix": `["X-Remote-Extra-"]`,
		"requestheader-allowed-names": `["front-proxy-client"]`,
	}}
	a.allowed = func(authzv1.SubjectAccessReviewSpec) bool { return true }
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	a.EnableHTTP2 = true
	a.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
	a.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	a.StartTLS()
	t.Cleanup(a.Close)
	return a
}

func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	switch {
	case strings.HasSuffix(r.URL.Path, "/tokenreviews") && r.Method == http.MethodPost:
		a.tokenReview(w, r)
	case strings.HasSuffix(r.URL.Path, "/subjectaccessreviews") && r.Method == http.MethodPost:
		a.accessReview(w, r)
	case r.URL.Path == "/api/v1/namespaces/kube-system/configmaps/extension-apiserver-authentication":
		a.mu.Lock()
		defer a.mu.Unlock()
		if a.forbid {
			answer(w, http.StatusForbidden, metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonForbidden, Code: 403, Message: "configmaps is forbidden"})
			return
		}
		answer(w, http.StatusOK, corev1.ConfigMap{TypeMeta: metav1.TypeMeta{Kind: "ConfigMap", APIVersion: "v1"}, Data: a.config})
	default:
		a.other(w, r)
	}
}

func (a *api) other(w http.ResponseWriter, r *http.Request) {
	a.mu.Lock()
	handle := a.handle
	a.mu.Unlock()
	if handle != nil {
		a.record(r, "", false)
		handle(w, r)
		return
	}
	body, err := io.ReadAll(r.Body)
	a.record(r, string(body), err != nil)
	w.Header().Set("X-From", "api")
	_, _ = io.WriteString(w, r.URL.EscapedPath())
}

func (a *api) record(r *http.Request, body string, broken bool) {
	s := seen{Method: r.Method, Path: r.URL.RequestURI(), Proto: r.Proto, Host: r.Host, Header: r.Header.Clone(), Trailer: r.Trailer.Clone(), Conn: r.RemoteAddr, Body: body, Broken: broken}
	if len(r.TLS.PeerCertificates) > 0 {
		s.Peer = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, s)
}

func (a *api) tokenReview(w http.ResponseWriter, r *http.Request) {
	var review authnv1.TokenReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.asked++
	a.account = r.Header.Get("Authorization")
	if a.forbid {
		answer(w, http.StatusForbidden, forbidden("tokenreviews"))
		return
	}
	review.TypeMeta = metav1.TypeMeta{Kind: "TokenReview", APIVersion: "authentication.k8s.io/v1"}
	review.Status.User, review.Status.Authenticated = a.tokens[review.Spec.Token], a.tokens[review.Spec.Token].Username != ""
	answer(w, http.StatusCreated, review)
}

func (a *api) accessReview(w http.ResponseWriter, r *http.Request) {
	var review authzv1.SubjectAccessReview
	if err := json.NewDecoder(r.Body).Decode(&review); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.reviews = append(a.reviews, review.Spec)
	a.account = r.Header.Get("Authorization")
	if a.forbid {
		answer(w, http.StatusForbidden, forbidden("subjectaccessreviews"))
		return
	}
	review.TypeMeta = metav1.TypeMeta{Kind: "SubjectAccessReview", APIVersion: "authorization.k8s.io/v1"}
	review.Status.Allowed = a.allowed(review.Spec)
	answer(w, http.StatusCreated, review)
}

func forbidden(what string) metav1.Status {
	return metav1.Status{TypeMeta: metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}, Status: "Failure", Reason: metav1.StatusReasonForbidden, Code: 403, Message: what + " is forbidden"}
}

func answer(w http.ResponseWriter, code int, body any) {
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(code)
	_ = json.NewEncoder(w).Encode(body)
}

// take returns the requests since the last time.
func (a *api) take() []seen {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.seen
	a.seen = nil
	return out
}

func (a *api) count() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.seen)
}

// one returns the only request since the last time.
func (a *api) one(t testing.TB) seen {
	t.Helper()
	all := a.take()
	if len(all) != 1 {
		t.Fatalf("the API server got %d requests, want 1: %+v", len(all), all)
	}
	return all[0]
}

func (a *api) takeReviews() []authzv1.SubjectAccessReviewSpec {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.reviews
	a.reviews = nil
	return out
}

// own is the credential of the server under test, which no request of a client's may carry.
const own = "own-secret"

func (a *api) kubeconfig() *rest.Config {
	return &rest.Config{Host: a.URL, BearerToken: own, TLSClientConfig: rest.TLSClientConfig{
		CAData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw}),
	}}
}

// stage is a front between clients and a fake API server.
type frontConfig = server.FrontConfig

type stage struct {
	*server.Front
	api              *api
	clients, proxies *authority
	serving          *authority
	url              string
	log              *records
	options          *server.FrontOptions
	proxied          chan *http.Request // requests that Proxy got; nil: none are kept
	stop             func() error
}

func isProxy(r *http.Request) bool { return strings.Contains(r.URL.Path, "/proxy") }
func isGone(r *http.Request) bool  { return strings.HasPrefix(r.URL.Path, "/api/v1/proxy/") }

// newStage starts one; edit may change what it is made from.
func newStage(t testing.TB, edit func(*stage, *server.FrontConfig)) *stage {
	t.Helper()
	s := &stage{clients: newAuthority(t, "clients"), proxies: newAuthority(t, "proxies"), serving: newAuthority(t, "serving"), log: &records{}}
	s.api = newAPI(t, s.clients, s.proxies)
	s.options = server.NewFrontOptions()
	s.options.DrainTimeout = 5 * time.Second
	dir := t.TempDir()
	cert, key := s.proxies.sign(t, pkix.Name{CommonName: "front-proxy-client"}, time.Hour)
	s.options.ProxyClientCertFile, s.options.ProxyClientKeyFile = write(t, dir, "proxy.crt", cert), write(t, dir, "proxy.key", key)
	cert, key = s.serving.sign(t, pkix.Name{CommonName: "front"}, time.Hour)
	s.options.Serving.ServerCert.CertKey.CertFile, s.options.Serving.ServerCert.CertKey.KeyFile = write(t, dir, "tls.crt", cert), write(t, dir, "tls.key", key)
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s.options.Serving.Listener, s.url = listener, "https://"+listener.Addr().String()
	config := server.FrontConfig{
		Options: s.options, Kubeconfig: s.api.kubeconfig(), IsProxy: isProxy, IsGone: isGone, Log: slog.New(s.log),
		Proxy: func(next http.Handler, _ authorizer.Authorizer) http.Handler { return http.HandlerFunc(s.proxy(next)) },
		Gone:  http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusGone) }),
	}
	if edit != nil {
		edit(s, &config)
	}
	if err := s.options.Validate(); err != nil {
		t.Fatal(err)
	}
	if s.Front, err = server.NewFront(config); err != nil {
		t.Fatal(err)
	}
	s.stop = run(t, s.Front.Run)
	waitFor(t, func() bool { return s.Ready() == nil })
	return s
}

// run starts something and returns what ends it. It is ended with the test at the latest.
func run(t testing.TB, what func(context.Context) error) (stop func() error) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- what(ctx) }()
	stop = sync.OnceValue(func() error { cancel(); return <-ended })
	t.Cleanup(func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
	})
	return stop
}

// proxy stands for the proxy's own handler.
func (s *stage) proxy(next http.Handler) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if s.proxied != nil {
			s.proxied <- r
		}
		if r.URL.Query().Has("upstream") {
			next.ServeHTTP(w, r)
			return
		}
		w.Header().Set("X-From", "proxy")
		_, _ = io.WriteString(w, "proxied")
	}
}

func write(t testing.TB, dir, name string, content []byte) string {
	t.Helper()
	name = filepath.Join(dir, name)
	if err := os.WriteFile(name, content, 0o600); err != nil {
		t.Fatal(err)
	}
	return name
}

func waitFor(t testing.TB, what func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !what(); time.Sleep(time.Millisecond) { // a poll
		if time.Now().After(deadline) {
			t.Fatal("it does not happen")
		}
	}
}

// client returns a client with a certificate, or none, of one version of HTTP.
func (s *stage) client(t testing.TB, certificate *tls.Certificate, version int) *http.Client {
	t.Helper()
	config := &tls.Config{RootCAs: s.serving.pool()}
	if certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	transport := &http.Transport{TLSClientConfig: config, Protocols: &http.Protocols{}, DisableCompression: true}
	transport.Protocols.SetHTTP1(version == 1)
	transport.Protocols.SetHTTP2(version == 2)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// do sends a request and returns the answer with its body.
func do(t testing.TB, c *http.Client, method, url string, header http.Header, body io.Reader) (*http.Response, string) {
	t.Helper()
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, string(content)
}

// records is a slog.Handler that keeps messages.
type records struct {
	mu   sync.Mutex
	text bytes.Buffer
}

func (r *records) Enabled(context.Context, slog.Level) bool { return true }
func (r *records) WithAttrs([]slog.Attr) slog.Handler       { return r }
func (r *records) WithGroup(string) slog.Handler            { return r }
func (r *records) Handle(ctx context.Context, record slog.Record) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return slog.NewTextHandler(&r.text, nil).Handle(ctx, record)
}

func (r *records) String() string {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.text.String()
}

const podProxy = "/api/v1/namespaces/a/pods/https:web:443/proxy/x"

func freePort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func quiet() *slog.Logger                                            { return slog.New(slog.DiscardHandler) }
func logTo(r *records) *slog.Logger                                  { return slog.New(r) }
func passOn(next http.Handler, _ authorizer.Authorizer) http.Handler { return next }
