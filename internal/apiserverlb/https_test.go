package apiserverlb_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"io"
	"math/big"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"varco.dev/internal/apiserverlb/config"
)

// issue writes a certificate and its key to files, signed by an authority, or by itself if that is nil.
func issue(t *testing.T, by *tls.Certificate, subject pkix.Name) (pair tls.Certificate, certFile, keyFile string) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: subject, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth}, BasicConstraintsValid: true, IsCA: by == nil,
	}
	parent, signer := template, any(key)
	if by != nil {
		parent, signer = by.Leaf, by.PrivateKey
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		t.Fatal(err)
	}
	certFile, keyFile = writePair(t, der, keyDER)
	if pair, err = tls.LoadX509KeyPair(certFile, keyFile); err != nil {
		t.Fatal(err)
	}
	return pair, certFile, keyFile
}

func writePair(t *testing.T, cert, key []byte) (certFile, keyFile string) {
	t.Helper()
	dir := t.TempDir()
	certFile, keyFile = filepath.Join(dir, "tls.crt"), filepath.Join(dir, "tls.key")
	for file, block := range map[string]*pem.Block{certFile: {Type: "CERTIFICATE", Bytes: cert}, keyFile: {Type: "PRIVATE KEY", Bytes: key}} {
		if err := os.WriteFile(file, pem.EncodeToMemory(block), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return certFile, keyFile
}

// requestSettings are those of a balancer whose only listener is of mode https, and a client with a certificate.
func requestSettings(t *testing.T, servers ...*server) (config.Config, *http.Client) {
	t.Helper()
	c := settings(t, servers...)
	key, err := x509.MarshalPKCS8PrivateKey(servers[0].TLS.Certificates[0].PrivateKey)
	if err != nil {
		t.Fatal(err)
	}
	l := &c.Listeners[0]
	l.Mode = config.ModeHTTPS
	l.TLS.CertFile, l.TLS.KeyFile = writePair(t, servers[0].Certificate().Raw, key)
	clients, clientCA, _ := issue(t, nil, pkix.Name{CommonName: "clients"})
	proxies, proxyCA, _ := issue(t, nil, pkix.Name{CommonName: "proxies"})
	h := &c.HTTPS
	h.ClientCAFile, h.RequestHeader.CAFile = clientCA, proxyCA
	_, h.FrontProxyCertFile, h.FrontProxyKeyFile = issue(t, &proxies, pkix.Name{CommonName: "front-proxy-client"})
	jane, _, _ := issue(t, &clients, pkix.Name{CommonName: "jane", Organization: []string{"devs"}})
	c.Complete()
	roots := x509.NewCertPool()
	roots.AddCert(servers[0].Certificate())
	transport := &http.Transport{TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{jane}}, ForceAttemptHTTP2: true}
	t.Cleanup(transport.CloseIdleConnections)
	return c, &http.Client{Transport: transport}
}

// TestRequests serves requests: their client is known to the API servers by the certificate that it has shown here.
func TestRequests(t *testing.T) {
	t.Parallel() // it waits more than it works
	servers := []*server{startServer(t), startServer(t)}
	c, client := requestSettings(t, servers...)
	b := start(t, c, servers...)
	if err := b.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
	count := map[string]int{}
	for range 20 {
		resp, err := client.Get("https://" + b.addr + "/who")
		if err != nil {
			t.Fatal(err)
		}
		body, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if got, want := string(body), "front-proxy-client says jane [devs system:authenticated]"; got != want && got != "front-proxy-client says jane [devs]" {
			t.Errorf("the API server believes in %q, want %q", got, want)
		}
		count[resp.Header.Get("Server-Address")]++
	}
	for _, s := range servers {
		if count[s.addr] < 5 {
			t.Errorf("%d of 20 requests of one connection went to %s", count[s.addr], s.addr)
		}
	}
	if n := b.Status().HTTPSConnections; n < 1 {
		t.Errorf("%d connections are counted", n)
	}
}

// TestRequestsOfRedServer has watches through mode https leave a server that has been red for a while.
func TestRequestsOfRedServer(t *testing.T) {
	t.Parallel() // it waits more than it works
	servers := []*server{startServer(t), startServer(t)}
	c, client := requestSettings(t, servers...)
	b := start(t, c, servers...)
	b.proven(servers...)
	for range 4 {
		resp, err := client.Get("https://" + b.addr + "/api/v1/pods?watch=true")
		if err != nil {
			t.Fatal(err)
		}
		go func() { _, _ = io.Copy(io.Discard, resp.Body) }()
	}
	b.await("there are watches", 5*time.Second, func() bool { return servers[0].watches.Load() > 0 && b.state(servers[0]).Requests > 0 })
	servers[0].ready.Store(http.StatusInternalServerError)
	b.await("the watches have left", 25*time.Second, func() bool { return servers[0].watches.Load() == 0 })
	if n := b.Status().Moved["draining"]; n == 0 {
		t.Error("the watches that left were not counted")
	}
}

// TestRequestsEnd ends a balancer of nothing but mode https while a request is answered: it must come to its end.
func TestRequestsEnd(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := startServer(t)
	c, client := requestSettings(t, s)
	c.Drain.Timeout.Duration = 20 * time.Second
	b := start(t, c, s)
	q, err := http.NewRequestWithContext(context.Background(), http.MethodGet, "https://"+b.addr+"/slow", nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(q)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	r := bufio.NewReader(resp.Body)
	if line, err := r.ReadString('\n'); line != "begun\n" || err != nil {
		t.Fatal(line, err)
	}
	go b.end()
	b.await("no new connections are taken", 5*time.Second, func() bool { return len(b.Status().Listeners) == 0 })
	time.Sleep(200 * time.Millisecond) // what would cut the request has its time
	close(s.goOn)
	if line, err := r.ReadString('\n'); line != "ended\n" || err != nil {
		t.Errorf("the rest of the answer: %q, %v", line, err)
	}
	b.end()
}
