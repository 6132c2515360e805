package cluster

import (
	"crypto/tls"
	"log/slog"
	"testing"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"
)

// TestSameCertificateAgain has a plugin give a copy of the certificate that is in use, as one does that is run again. The
// transports stay, and the next request need not compare certificates.
func TestSameCertificateAgain(t *testing.T) {
	owner := New(Config{Log: slog.New(slog.DiscardHandler)})
	c, err := newCluster(owner, "", "main", &rest.Config{Host: "https://127.0.0.1:1"})
	if err != nil {
		t.Fatal(err)
	}
	gives := &tls.Certificate{Certificate: [][]byte{{1}}}
	c.transport.TLS.GetCertHolder = &transport.GetCertHolder{GetCert: func() (*tls.Certificate, error) { return gives, nil }}
	first := c.current(false)
	again := *gives
	gives = &again
	second := c.current(false)
	if second.plugin != gives || second.base != first.base {
		t.Error("the copy is not remembered, or has led to new transports")
	}
	if c.current(false) != second {
		t.Error("the copy is looked at for each request")
	}
}
