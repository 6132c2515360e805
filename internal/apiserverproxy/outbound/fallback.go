package outbound

import (
	"io"
	"net/http"
	"strings"
	"sync"
)

// maxHosts is how many targets are remembered to speak HTTP/2 alone. Past it all are forgotten, which costs each a
// handshake.
const maxHosts = 1024

// hosts are the targets that speak HTTP/2 alone, as host:port.
type hosts struct {
	mu    sync.RWMutex // guards names
	names map[string]struct{}
}

func (h *hosts) has(name string) bool {
	h.mu.RLock()
	defer h.mu.RUnlock()
	_, ok := h.names[name]
	return ok
}

func (h *hosts) add(name string) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.names == nil || len(h.names) >= maxHosts {
		h.names = map[string]struct{}{}
	}
	h.names[name] = struct{}{}
}

// roundTrip speaks HTTP/1.1, or HTTP/2 to a target that refuses the handshake without it. Nothing of the request was sent
// then.
func (t *transports) roundTrip(r *http.Request) (*http.Response, error) {
	if t.multiplex.has(r.URL.Host) {
		return t.multiplexed.RoundTrip(r)
	}
	if r.Body == nil || r.Body == http.NoBody {
		resp, err := t.ordinary.RoundTrip(r)
		if !needsHTTP2(err) {
			return resp, err
		}
		t.multiplex.add(r.URL.Host)
		return t.multiplexed.RoundTrip(r)
	}
	body := &keptBody{ReadCloser: r.Body}
	first := *r
	first.Body = body
	resp, err := t.ordinary.RoundTrip(&first)
	if !needsHTTP2(err) {
		body.release()
		return resp, err
	}
	t.multiplex.add(r.URL.Host)
	return t.multiplexed.RoundTrip(r)
}

// needsHTTP2 says whether a handshake has failed for want of HTTP/2: the alert no_application_protocol (RFC 7301, 3.2),
// whose type crypto/tls keeps to itself.
func needsHTTP2(err error) bool {
	return err != nil && strings.HasSuffix(err.Error(), "tls: no application protocol")
}

// keptBody is a body that stays open until it is known that there is no second try: a transport closes it when it fails.
type keptBody struct {
	io.ReadCloser
	mu       sync.Mutex // guards the fields below
	closed   bool
	released bool
}

// Close implements io.Closer.
func (b *keptBody) Close() error {
	b.mu.Lock()
	b.closed = true
	now := b.released
	b.mu.Unlock()
	if !now {
		return nil
	}
	return b.ReadCloser.Close()
}

// release closes the body if that was asked for, and lets it be closed from now on.
func (b *keptBody) release() {
	b.mu.Lock()
	b.released = true
	now := b.closed
	b.mu.Unlock()
	if now {
		b.ReadCloser.Close()
	}
}
