package https_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"io"
	"log/slog"
	"math/big"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"varco.dev/internal/apiserverlb/https"
	"varco.dev/internal/backend"
	"varco.dev/internal/httpproxy/identity"
	"varco.dev/internal/httpproxy/vouch"
)

// authority signs certificates.
type authority struct {
	certificate *x509.Certificate
	key         *ecdsa.PrivateKey
	pem         []byte
}

func newAuthority(t testing.TB, name string) *authority {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
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

// sign returns a certificate and its key, in PEM.
func (a *authority) sign(t testing.TB, name string, groups ...string) (certPEM, keyPEM []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	serial, err := rand.Int(rand.Reader, big.NewInt(1<<62))
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: serial, Subject: pkix.Name{CommonName: name, Organization: groups}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
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

func (a *authority) pair(t testing.TB, name string, groups ...string) *tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(a.sign(t, name, groups...))
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

// seen is a request as an API server got it.
type seen struct {
	Method, Path, Host string
	Header             http.Header
	Trailer            http.Header
	Peer               string // common name of the client certificate; empty: none
	Body               string
}

// api is a fake API server.
type api struct {
	*httptest.Server
	addr netip.AddrPort

	mu     sync.Mutex // guards the fields below
	seen   []seen
	handle http.HandlerFunc // nil: 200, and its address
	gate   chan struct{}    // closed: it runs; else it hangs
}

func newAPI(t testing.TB, serving *authority) *api {
	t.Helper()
	a := &api{gate: make(chan struct{})}
	close(a.gate)
	a.Server = httptest.NewUnstartedServer(http.HandlerFunc(a.serve))
	a.Listener = &gated{Listener: a.Listener, a: a}
	a.EnableHTTP2 = true
	a.TLS = &tls.Config{ClientAuth: tls.RequestClientCert, Certificates: []tls.Certificate{*serving.pair(t, "kube-apiserver")}}
	a.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	a.StartTLS()
	a.addr = netip.MustParseAddrPort(a.Server.Listener.Addr().String())
	t.Cleanup(func() { a.resume(); a.CloseClientConnections(); a.Close() })
	return a
}

// gated does not accept while its API server hangs; the kernel does, as for a process that is stopped.
type gated struct {
	net.Listener
	a *api
}

func (g *gated) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	g.a.wait()
	return c, err
}

func (a *api) wait() {
	a.mu.Lock()
	gate := a.gate
	a.mu.Unlock()
	<-gate
}

// hang has it answer nothing, and make no handshakes.
func (a *api) hang() {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.gate = make(chan struct{})
}

func (a *api) resume() {
	a.mu.Lock()
	defer a.mu.Unlock()
	select {
	case <-a.gate:
	default:
		close(a.gate)
	}
}

func (a *api) serve(w http.ResponseWriter, r *http.Request) {
	a.wait()
	a.mu.Lock()
	handle := a.handle
	a.mu.Unlock()
	if handle != nil {
		a.record(r, "")
		handle(w, r)
		return
	}
	body, _ := io.ReadAll(r.Body)
	a.record(r, string(body))
	_, _ = io.WriteString(w, a.addr.String())
}

func (a *api) record(r *http.Request, body string) {
	s := seen{Method: r.Method, Path: r.URL.RequestURI(), Host: r.Host, Header: r.Header.Clone(), Trailer: r.Trailer.Clone(), Body: body}
	if len(r.TLS.PeerCertificates) > 0 {
		s.Peer = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	a.seen = append(a.seen, s)
}

func (a *api) answers(h http.HandlerFunc) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.handle = h
}

// take returns the requests since the last time.
func (a *api) take() []seen {
	a.mu.Lock()
	defer a.mu.Unlock()
	out := a.seen
	a.seen = nil
	return out
}

// balancer is a pool as a Balancer.
type balancer struct {
	*backend.Pool
	mu     sync.Mutex // guards the fields below
	events map[https.Event]int
	out    []netip.AddrPort // not to be chosen
	leased atomic.Int64
}

func newBalancer(apis []*api) *balancer {
	b := &balancer{Pool: backend.NewPool(backend.Config{}), events: map[https.Event]int{}}
	var targets []backend.Target
	for _, a := range apis {
		targets = append(targets, backend.Target{Addr: a.addr})
	}
	b.Set(targets)
	return b
}

func (b *balancer) Pick(_ *http.Request, tried []netip.AddrPort) (https.Attempt, error) {
	b.mu.Lock()
	avoid := append(slices.Clone(b.out), tried...)
	b.mu.Unlock()
	lease, err := b.Pool.Pick(backend.Want{Avoid: avoid})
	if err != nil {
		return https.Attempt{}, err
	}
	b.leased.Add(1)
	var ended atomic.Bool
	return https.Attempt{Backend: lease.Addr(), Report: func(e https.Event) {
		if ended.Load() {
			panic("an event after the end: " + e.String())
		}
		if e == https.Ended {
			ended.Store(true)
			b.leased.Add(-1)
			lease.Done()
		}
		b.mu.Lock()
		defer b.mu.Unlock()
		b.events[e]++
	}}, nil
}

func (b *balancer) Others(tried []netip.AddrPort) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.Pool.Others(append(slices.Clone(b.out), tried...))
}

func (b *balancer) count(e https.Event) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.events[e]
}

// leave has a backend not be chosen any more, or again.
func (b *balancer) leave(out ...*api) {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.out = nil
	for _, a := range out {
		b.out = append(b.out, a.addr)
	}
}

// stage is a server between clients and three fake API servers.
type stage struct {
	*https.Server
	apis                      []*api
	balancer                  *balancer
	clients, proxies, serving *authority
	url                       string
	addr                      netip.AddrPort
	dir                       string
	stop                      func() error
}

// newStage starts one; edit may change what it is made from.
func newStage(t testing.TB, edit func(*stage, *https.Config, *https.Listener)) *stage {
	t.Helper()
	s := &stage{clients: newAuthority(t, "clients"), proxies: newAuthority(t, "proxies"), serving: newAuthority(t, "serving"), dir: t.TempDir()}
	for range 3 {
		s.apis = append(s.apis, newAPI(t, s.serving))
	}
	s.balancer = newBalancer(s.apis)
	trust := vouch.TrustConfig{
		ClientCAFile: s.write(t, "clients.crt", s.clients.pem), ProxyCAFile: s.write(t, "proxies.crt", s.proxies.pem), AllowedNames: []string{"front-proxy-client"},
		Headers: identity.Default(), Words: https.Words(), Log: quiet(),
	}
	cert, key := s.proxies.sign(t, "front-proxy-client")
	c := https.Config{
		Balancer: s.balancer, Trust: vouch.NewTrust(trust), Log: quiet(),
		FrontProxyCertFile: s.write(t, "proxy.crt", cert), FrontProxyKeyFile: s.write(t, "proxy.key", key),
		Backends: https.Backends{CAFile: s.write(t, "serving.crt", s.serving.pem), HandshakeTimeout: 2 * time.Second},
	}
	cert, key = s.serving.sign(t, "balancer")
	l := https.Listener{Name: "one", CertFile: s.write(t, "tls.crt", cert), KeyFile: s.write(t, "tls.key", key)}
	l.Net, s.addr = listen(t)
	s.url = "https://" + s.addr.String()
	if edit != nil {
		edit(s, &c, &l)
	}
	var err error
	if s.Server, err = https.New(c); err != nil {
		t.Fatal(err)
	}
	if err := s.Listen(l); err != nil {
		t.Fatal(err)
	}
	s.stop = run(t, s.Run)
	waitFor(t, func() bool { return s.Ready() == nil })
	return s
}

func listen(t testing.TB) (*net.TCPListener, netip.AddrPort) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l.(*net.TCPListener), netip.MustParseAddrPort(l.Addr().String())
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

func (s *stage) write(t testing.TB, name string, content []byte) string {
	t.Helper()
	name = filepath.Join(s.dir, name)
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

func (s *stage) tls(certificate *tls.Certificate) *tls.Config {
	config := &tls.Config{RootCAs: s.serving.pool()}
	if certificate != nil {
		config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return certificate, nil }
	}
	return config
}

// client returns a client with a certificate, or none, of one version of HTTP.
func (s *stage) client(t testing.TB, certificate *tls.Certificate, version int) *http.Client {
	t.Helper()
	transport := &http.Transport{TLSClientConfig: s.tls(certificate), Protocols: &http.Protocols{}, DisableCompression: true, MaxIdleConnsPerHost: 100}
	transport.Protocols.SetHTTP1(version == 1)
	transport.Protocols.SetHTTP2(version == 2)
	t.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport}
}

// ask sends a request and returns the answer with its body.
func ask(c *http.Client, method, url string, header http.Header, body io.Reader) (*http.Response, string, error) {
	r, err := http.NewRequest(method, url, body)
	if err != nil {
		return nil, "", err
	}
	for name, values := range header {
		r.Header[name] = values
	}
	resp, err := c.Do(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	return resp, string(content), err
}

func do(t testing.TB, c *http.Client, method, url string, header http.Header, body io.Reader) (*http.Response, string) {
	t.Helper()
	resp, content, err := ask(c, method, url, header, body)
	if err != nil {
		t.Fatal(err)
	}
	return resp, content
}

// token is the header of somebody with a token.
func token() http.Header { return http.Header{"Authorization": {"Bearer t"}} }

func quiet() *slog.Logger { return slog.New(slog.DiscardHandler) }

// watching answers watches with one event, and then others as they come, until its client or its end goes.
func watching(events <-chan string) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		flush := http.NewResponseController(w)
		_, err := io.WriteString(w, "{\"first\":true}\n")
		for err == nil {
			if err = flush.Flush(); err != nil {
				return
			}
			select {
			case e, ok := <-events:
				if !ok {
					return
				}
				_, err = io.WriteString(w, e)
			case <-r.Context().Done():
				return
			}
		}
	}
}

var errUnclean = errors.New("the watch did not end in order")

const pods = "/api/v1/namespaces/a/pods"
