package echo

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"time"
)

// certificate is a key pair that its own key signed.
type certificate struct{ tls.Certificate }

// selfSigned makes a key pair for localhost and, if there is one, the pod's address.
func selfSigned(podIP string) (certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return certificate{}, fmt.Errorf("make key: %w", err)
	}
	now := time.Now()
	template := &x509.Certificate{
		SerialNumber: big.NewInt(now.UnixNano()),
		Subject:      pkix.Name{CommonName: "lab/echo"},
		DNSNames:     []string{"localhost"},
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
		NotBefore:    now.Add(-time.Hour),
		NotAfter:     now.AddDate(1, 0, 0),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
	}
	if ip := net.ParseIP(podIP); ip != nil {
		template.IPAddresses = append(template.IPAddresses, ip)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return certificate{}, fmt.Errorf("make certificate: %w", err)
	}
	return certificate{tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}}, nil
}

func (c certificate) https(s *http.Server) func(net.Listener) error {
	s.TLSConfig = &tls.Config{Certificates: []tls.Certificate{c.Certificate}}
	return func(l net.Listener) error { return s.ServeTLS(l, "", "") }
}

func plainHTTP(s *http.Server) func(net.Listener) error { return s.Serve }

func unencryptedHTTP2(s *http.Server) func(net.Listener) error {
	s.Protocols = new(http.Protocols)
	s.Protocols.SetHTTP1(true)
	s.Protocols.SetUnencryptedHTTP2(true)
	return s.Serve
}
