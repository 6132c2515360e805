//go:build linux

package loop_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"
)

// authority signs certificates of servers and clients.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{pool: x509.NewCertPool()}
	c := a.issue(t, "authority")
	a.cert, a.key = c.Leaf, c.PrivateKey.(*ecdsa.PrivateKey)
	a.pool.AddCert(a.cert)
	return a
}

// issue makes a certificate; the first one signs itself.
func (a *authority) issue(t testing.TB, name string) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), Subject: pkix.Name{CommonName: name},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}, BasicConstraintsValid: true, IsCA: a.cert == nil,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = template, key
	}
	der, err := x509.CreateCertificate(rand.Reader, template, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key, Leaf: leaf}
}

// serveTLS starts a backend that wants client certificates, and tells each client who it is.
func (a *authority) serveTLS(t testing.TB) netip.AddrPort {
	config := &tls.Config{
		Certificates: []tls.Certificate{a.issue(t, "server")}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: a.pool,
	}
	return serve(t, func(c *net.TCPConn) {
		s := tls.Server(c, config)
		if s.Handshake() == nil {
			fmt.Fprintf(s, "you are %s", s.ConnectionState().PeerCertificates[0].Subject.CommonName)
		}
		s.Close()
	})
}

// client is how a client of serveTLS speaks. A long hello carries much that nobody looks at.
func (a *authority) client(t testing.TB, long int) *tls.Config {
	c := &tls.Config{RootCAs: a.pool, ServerName: "127.0.0.1", Certificates: []tls.Certificate{a.issue(t, "alice")}}
	for i := range long / 200 {
		c.NextProtos = append(c.NextProtos, fmt.Sprintf("%0199d", i))
	}
	return c
}

// helloOf returns the record of a ClientHello of so many bytes, 9 at least, in which nothing else is as it should be.
func helloOf(size int) string {
	head := []byte{0x16, 3, 1, byte((size - 5) >> 8), byte(size - 5), 1, 0, byte((size - 9) >> 8), byte(size - 9)}
	return string(head) + strings.Repeat("x", size-len(head))
}

// askTLS asks who the server takes the client for, and closes.
func askTLS(c net.Conn, config *tls.Config) (string, error) {
	defer c.Close()
	s := tls.Client(c, config)
	b, err := io.ReadAll(s)
	return string(b), err
}
