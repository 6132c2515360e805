package vouch

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"log/slog"
	"math/big"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"
	"time"
)

// selfSigned returns a certificate that is its own authority, and its PEM.
func selfSigned(t *testing.T, name string) (*x509.Certificate, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: name}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	c, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return c, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})
}

// TestVerdictsAreRememberedAndForgotten judges requests of one connection while the authority of clients changes.
func TestVerdictsAreRememberedAndForgotten(t *testing.T) {
	bob, authority := selfSigned(t, "bob")
	_, other := selfSigned(t, "other")
	file := filepath.Join(t.TempDir(), "ca.crt")
	set := func(content []byte) {
		if err := os.WriteFile(file, content, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set(authority)
	trust := NewTrust(TrustConfig{ClientCAFile: file, Log: slog.New(slog.DiscardHandler)})
	trust.Reload(t.Context())
	r := httptest.NewRequest(http.MethodGet, "/", nil)
	r.TLS = &tls.ConnectionState{PeerCertificates: []*x509.Certificate{bob}}
	r = r.WithContext(Remember(r.Context(), nil))
	first := trust.judge(r)
	if first.client == nil || first.client.User.GetName() != "bob" {
		t.Fatalf("verdict %+v", first)
	}
	if trust.judge(r) != first {
		t.Error("the certificate was verified twice")
	}
	trust.Reload(t.Context())
	if trust.judge(r) != first {
		t.Error("files that are the same made a difference")
	}
	first.until = time.Now()
	if v := trust.judge(r); v == first || v.client == nil {
		t.Errorf("after its time: %+v", v)
	}
	for _, content := range []string{"", "nonsense"} { // a file that is being written
		set([]byte(content))
		trust.Reload(t.Context())
		if v := trust.judge(r); v.client == nil {
			t.Errorf("after the file %q: %+v", content, v)
		}
	}
	set(other)
	trust.Reload(t.Context())
	if v := trust.judge(r); v.client != nil || v.err == nil {
		t.Errorf("the authority is trusted no more, but the verdict is %+v", v)
	}
	set(append(other, authority...))
	trust.Reload(t.Context())
	if v := trust.judge(r); v.client == nil {
		t.Errorf("the authority is trusted again, but the verdict is %+v", v)
	}
}
