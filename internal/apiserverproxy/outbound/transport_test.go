package outbound_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"

	"varco.dev/internal/apiserverproxy/outbound"
)

// TestVersions is what targets of each kind hear.
func TestVersions(t *testing.T) {
	o := loose(t, outbound.Config{})
	h1, tls1, tls2, h2c := newTarget(t, describe, plain), newTarget(t, describe, withTLS), newTarget(t, describe, withHTTP2), newTarget(t, describe, withH2C)
	const grpc = "application/grpc+proto"
	tests := []struct {
		name   string
		scheme string
		to     *target
		kind   string // Content-Type
		want   string // version
	}{
		{"http", "http", h1, "", "HTTP/1.1"},
		{"http with gRPC", "http", h1, grpc, "HTTP/1.1"},
		{"https", "https", tls1, "", "HTTP/1.1"},
		{"https to one that can do more", "https", tls2, "", "HTTP/1.1"},
		{"https with gRPC", "https", tls2, grpc, "HTTP/2.0"},
		{"https with gRPC to one that cannot", "https", tls1, grpc, "HTTP/1.1"},
		{"https with gRPC-Web", "https", tls2, "application/grpc-web", "HTTP/1.1"},
		{"h2c", "h2c", h2c, "", "HTTP/2.0"},
		{"h2c with gRPC", "h2c", h2c, grpc, "HTTP/2.0"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			// The scheme in the URL is any: that of the profile counts.
			r := request(t, "POST", "http://"+tt.to.Listener.Addr().String()+"/a%2Fb//c/..?x=%20", "body", "Content-Type", tt.kind)
			got, err := send(o.RoundTripper(outbound.Profile{Scheme: tt.scheme}), r)
			if want := tt.want + " POST /a%2Fb//c/..?x=%20 body"; got != want || err != nil {
				t.Errorf("got %q, %v, want %q", got, err, want)
			}
		})
	}
	if _, err := send(o.RoundTripper(outbound.Profile{Scheme: "gopher"}), request(t, "GET", h1.URL, "")); err == nil || !strings.Contains(err.Error(), "gopher") {
		t.Errorf("an unknown scheme: %v", err)
	}
}

// TestEncodings asks for no encoding that the client has not asked for, and leaves those alone that come.
func TestEncodings(t *testing.T) {
	handler := func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Encoding", "gzip")
		fmt.Fprintf(w, "accepts %q", r.Header["Accept-Encoding"])
	}
	o := loose(t, outbound.Config{})
	for scheme, server := range map[string]*target{"http": newTarget(t, handler, plain), "https": newTarget(t, handler, withTLS), "h2c": newTarget(t, handler, withH2C)} {
		if got, err := send(o.RoundTripper(outbound.Profile{Scheme: scheme}), request(t, "GET", server.URL, "")); got != "accepts []" || err != nil {
			t.Errorf("%s: got %q, %v", scheme, got, err)
		}
	}
}

// TestPool has 64 clients ask in step: they dial once each, and not again. net/http by itself keeps two connections.
func TestPool(t *testing.T) {
	const clients, rounds = 64, 10
	for name, start := range map[string]func(*httptest.Server) bool{"http": plain, "https": withTLS} {
		t.Run(name, func(t *testing.T) {
			arrived, gate := make(chan struct{}, clients), make(chan struct{})
			var mu sync.Mutex
			server := newTarget(t, func(w http.ResponseWriter, r *http.Request) {
				mu.Lock()
				open := gate
				mu.Unlock()
				arrived <- struct{}{}
				<-open
			}, start)
			rt := loose(t, outbound.Config{}).RoundTripper(outbound.Profile{Scheme: name})
			for range rounds {
				var all sync.WaitGroup
				for range clients {
					all.Go(func() {
						if _, err := send(rt, request(t, "GET", server.URL, "")); err != nil {
							t.Error(err)
						}
					})
				}
				for range clients {
					<-arrived
				}
				mu.Lock()
				close(gate)
				gate = make(chan struct{})
				mu.Unlock()
				all.Wait()
			}
			if got, _ := server.connections(); got != clients {
				t.Errorf("%d clients made %d connections in %d rounds", clients, got, rounds)
			}
		})
	}
}
