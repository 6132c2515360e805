package outbound_test

import (
	"crypto/tls"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"slices"
	"sync"
	"testing"
	"testing/iotest"

	"varco.dev/internal/apiserverproxy/outbound"
)

// onlyHTTP2 is a kind of server that refuses a handshake without HTTP/2. Go's servers by themselves let HTTP/1.1 pass.
func onlyHTTP2(s *httptest.Server) bool {
	s.TLS = &tls.Config{}
	s.TLS.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		config := s.TLS.Clone()
		config.NextProtos = []string{"h2"}
		if !slices.Contains(hello.SupportedProtos, "h2") {
			config.NextProtos = []string{"none"}
		}
		return config, nil
	}
	s.EnableHTTP2 = true
	return true
}

// body counts how often it is closed, and cannot be read afterwards.
type body struct {
	from   io.Reader
	mu     sync.Mutex // guards closed
	closed int
}

func (b *body) Read(p []byte) (int, error) {
	if b.times() > 0 {
		return 0, http.ErrBodyReadAfterClose
	}
	return b.from.Read(p)
}

func (b *body) Close() error {
	b.mu.Lock()
	defer b.mu.Unlock()
	b.closed++
	return nil
}

func (b *body) times() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.closed
}

// TestOnlyHTTP2 has a target that speaks nothing else. HTTP/1.1 is tried once, and nothing of a body is lost by it.
func TestOnlyHTTP2(t *testing.T) {
	server := newTarget(t, describe, onlyHTTP2)
	rt := loose(t, outbound.Config{}).RoundTripper(outbound.Profile{Scheme: "https"})
	for _, text := range []string{"one", "", "two"} {
		r := request(t, "POST", server.URL+"/x", text)
		b := &body{from: r.Body}
		if text != "" {
			r.Body = b
		}
		got, err := send(rt, r)
		if want := "HTTP/2.0 POST /x " + text; got != want || err != nil {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
		if text != "" {
			until(t, "the body is closed", func() bool { return b.times() > 0 })
		}
	}
	if all, _ := server.connections(); all != 2 {
		t.Errorf("%d connections, want 2: a refused one and one for all requests", all)
	}
}

// TestBodiesAreClosed looks after bodies that are sent, not wanted, or fail.
func TestBodiesAreClosed(t *testing.T) {
	server := newTarget(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/unread" {
			io.Copy(io.Discard, r.Body)
		}
	}, withTLS)
	o := loose(t, outbound.Config{})
	broken := errors.New("broken")
	for _, tt := range []struct {
		name, url string
		profile   outbound.Profile
		body      io.Reader
		fails     bool
	}{
		{"sent", server.URL, outbound.Profile{Scheme: "https"}, io.LimitReader(zeros{}, 1<<20), false},
		{"unread", server.URL + "/unread", outbound.Profile{Scheme: "https"}, io.LimitReader(zeros{}, 1), false},
		{"broken", server.URL, outbound.Profile{Scheme: "https"}, io.MultiReader(io.LimitReader(zeros{}, 1<<20), iotest.ErrReader(broken)), true},
		{"refused", "https://169.254.169.254", outbound.Profile{Scheme: "https"}, zeros{}, true},
		{"unusable profile", server.URL, outbound.Profile{Scheme: "https", CA: "none"}, zeros{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := request(t, "POST", tt.url, "x")
			b := &body{from: tt.body}
			r.Body, r.ContentLength = b, -1
			if _, err := send(o.RoundTripper(tt.profile), r); (err != nil) != tt.fails {
				t.Errorf("got %v", err)
			}
			until(t, "the body is closed", func() bool { return b.times() > 0 })
		})
	}
}

// zeros is a reader without an end.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
