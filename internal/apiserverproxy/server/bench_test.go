package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"io"
	"net/http"
	"net/http/httptest"
	"testing"

	authnv1 "k8s.io/api/authentication/v1"
)

// nowhere is a ResponseWriter that costs nothing.
type nowhere struct{ header http.Header }

func (n *nowhere) Header() http.Header         { return n.header }
func (n *nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n *nowhere) WriteHeader(int)             {}

// BenchmarkChain is what a small request for the proxy costs before its handler has it, without TLS and HTTP.
func BenchmarkChain(b *testing.B) {
	s := newStage(b, nil)
	s.api.tokens["alice"] = authnv1.UserInfo{Username: "alice", Groups: []string{"a", "b"}}
	bob := s.clients.pair(b, pkix.Name{CommonName: "bob", Organization: []string{"x", "y"}})
	leaf, err := x509.ParseCertificate(bob.Certificate[0])
	if err != nil {
		b.Fatal(err)
	}
	for name, c := range map[string]struct {
		header http.Header
		state  *tls.ConnectionState
	}{
		"token":       {bearer("alice"), nil},
		"certificate": {http.Header{}, &tls.ConnectionState{PeerCertificates: []*x509.Certificate{leaf}}},
		"anonymous":   {http.Header{}, nil},
	} {
		b.Run(name, func(b *testing.B) {
			r := httptest.NewRequest(http.MethodGet, podProxy, nil)
			r.TLS = c.state
			r = r.WithContext(s.Front.ConnContext()(context.Background(), nil))
			for name, values := range c.header {
				r.Header[name] = values
			}
			for _, name := range []string{"Accept", "Accept-Encoding", "User-Agent", "X-Request-Id"} {
				r.Header.Set(name, "something")
			}
			b.ReportAllocs()
			for b.Loop() {
				s.Handler().ServeHTTP(&nowhere{http.Header{}}, r)
			}
		})
	}
}

// BenchmarkFront is a small request over TLS, to the proxy and passed on, with all ends in one process.
func BenchmarkFront(b *testing.B) {
	s := newStage(b, nil)
	s.api.tokens["alice"] = authnv1.UserInfo{Username: "alice"}
	s.api.handleWith(nil)
	for name, path := range map[string]string{"proxy": podProxy, "pass": "/version"} {
		b.Run(name, func(b *testing.B) {
			c := s.client(b, nil, 1)
			for b.Loop() {
				r, err := http.NewRequest(http.MethodGet, s.url+path, nil)
				if err != nil {
					b.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer alice")
				resp, err := c.Do(r)
				if err != nil {
					b.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
			}
			s.api.take()
		})
	}
}
