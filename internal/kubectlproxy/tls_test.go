package kubectlproxy_test

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/util/cert"
)

// pair is a certificate and its key in PEM.
type pair struct{ cert, key []byte }

// selfSigned makes a pair for 127.0.0.1.
func selfSigned(t *testing.T) pair {
	t.Helper()
	c, k, err := cert.GenerateSelfSignedCertKey("localhost", []net.IP{net.IPv4(127, 0, 0, 1)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	return pair{c, k}
}

// forClients makes a pair that a client may show.
func forClients(t *testing.T) pair {
	t.Helper()
	public, private, err := ed25519.GenerateKey(nil)
	if err != nil {
		t.Fatal(err)
	}
	what := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "client"}, NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, what, what, public, private)
	if err != nil {
		t.Fatal(err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	block := func(kind string, b []byte) []byte { return pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: b}) }
	return pair{block("CERTIFICATE", der), block("PRIVATE KEY", key)}
}

// put writes the pair; its files look different from any before, even within one tick of the clock.
func (p pair) put(t *testing.T, certFile, keyFile string, when time.Time) {
	t.Helper()
	for path, content := range map[string][]byte{certFile: p.cert, keyFile: p.key} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, when, when); err != nil {
			t.Fatal(err)
		}
	}
}

// trust is a client's configuration that trusts the pair alone.
func (p pair) trust() *tls.Config {
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(p.cert)
	return &tls.Config{RootCAs: pool, ServerName: "127.0.0.1"}
}

func testTLSFiles(t *testing.T) {
	dir := t.TempDir()
	certFile, keyFile := filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	first, second := selfSigned(t), selfSigned(t)
	first.put(t, certFile, keyFile, time.Now().Add(-time.Hour))
	s := newStage(t, func(s *stage) { s.config.TLS.CertFile, s.config.TLS.KeyFile = certFile, keyFile })
	ask := func(trusted pair) (string, error) {
		w, err := s.ours.secure(t, trusted.trust(), get("/version"))
		if err != nil {
			return "", err
		}
		return w.answer(t).String(), nil
	}
	if got, err := ask(first); err != nil || got != "200 GET /version" {
		t.Fatalf("%q, %v", got, err)
	}
	if _, err := s.original.secure(t, first.trust(), get("/version")); err == nil {
		t.Error("kubectl proxy speaks TLS: has it changed?")
	}
	second.put(t, certFile, keyFile, time.Now())
	if got, err := ask(second); err != nil || got != "200 GET /version" {
		t.Errorf("after the files have changed: %q, %v", got, err)
	}
	pair{second.cert, []byte("broken")}.put(t, certFile, keyFile, time.Now().Add(time.Hour))
	if got, err := ask(second); err != nil || got != "200 GET /version" {
		t.Errorf("after the files were broken: %q, %v", got, err)
	}
	if said := s.log.String(); strings.Count(said, "the last good one stays in use") != 1 {
		t.Errorf("the log says %q of it", said)
	}
	if got := s.ours.send(t, get("/version")); got.Code != 400 {
		t.Errorf("without TLS: %v", got)
	}
}

func testSelfSigned(t *testing.T) {
	s := prepare(t)
	s.config.TLS.SelfSigned, s.config.UI = true, true
	s.startOurs()
	if !strings.HasPrefix(s.page, "Open https://localhost:") {
		t.Errorf("second line of output: %q", s.page)
	}
	for _, name := range []string{"localhost", "127.0.0.1"} {
		w, err := s.ours.secure(t, &tls.Config{ServerName: name, InsecureSkipVerify: true}, get("/version"))
		if err != nil {
			t.Fatal(err)
		}
		shown := w.Conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
		if err := shown.VerifyHostname(name); err != nil {
			t.Error(err)
		}
		if got := w.answer(t).String(); got != "200 GET /version" {
			t.Error(got)
		}
	}
}

func testClientCA(t *testing.T) {
	client, stranger := forClients(t), forClients(t)
	file := filepath.Join(t.TempDir(), "ca.crt")
	if err := os.WriteFile(file, client.cert, 0o600); err != nil {
		t.Fatal(err)
	}
	s := prepare(t)
	s.config.TLS.SelfSigned, s.config.TLS.ClientCAFile = true, file
	s.startOurs()
	for name, c := range map[string]struct {
		shows *pair
		fine  bool
	}{"none": {nil, false}, "another's": {&stranger, false}, "its own": {&client, true}} {
		config := &tls.Config{InsecureSkipVerify: true}
		if c.shows != nil {
			shown, err := tls.X509KeyPair(c.shows.cert, c.shows.key)
			if err != nil {
				t.Fatal(err)
			}
			config.Certificates = []tls.Certificate{shown}
		}
		w, err := s.ours.secure(t, config, get("/version"))
		if err == nil { // TLS 1.3 tells a client only when it reads
			_, err = w.in.Peek(1)
		}
		if (err == nil) != c.fine {
			t.Errorf("with %s certificate: %v", name, err)
		}
	}
}

func testHTTP2(t *testing.T) {
	plain := newStage(t)
	secure := prepare(t)
	secure.config.TLS.SelfSigned = true
	secure.startOurs()
	for _, c := range []struct {
		url   string
		clear bool
	}{{plain.ours.url("/version"), true}, {"https://" + secure.ours.address + "/version", false}} {
		protocols := &http.Protocols{}
		protocols.SetHTTP2(!c.clear)
		protocols.SetUnencryptedHTTP2(c.clear)
		client := &http.Client{Transport: &http.Transport{Protocols: protocols, TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}}
		resp, err := client.Get(c.url)
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(resp.Body)
		resp.Body.Close()
		if err != nil || resp.ProtoMajor != 2 || string(body) != "GET /version" {
			t.Errorf("%s: %s %q, %v", c.url, resp.Proto, body, err)
		}
		if resp, err := client.Get(plain.original.url("/version")); c.clear && err == nil {
			resp.Body.Close()
			t.Error("kubectl proxy speaks HTTP/2: has it changed?")
		}
		client.CloseIdleConnections()
	}
}
