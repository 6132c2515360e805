package balance_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"testing"

	"varco.dev/internal/apiserverproxy/balance"
)

// canned is a RoundTripper that knows the answer.
type canned struct{ answer http.Response }

func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	trace := httptrace.ContextClientTrace(r.Context())
	trace.GetConn(r.URL.Host)
	trace.GotConn(httptrace.GotConnInfo{})
	trace.GotFirstResponseByte()
	answer := c.answer
	answer.Request = r
	answer.Body = io.NopCloser(strings.NewReader(""))
	return &answer, nil
}

// addrs returns addresses that nobody dials.
func addrs(n int) (out []netip.AddrPort) {
	for i := range n {
		out = append(out, netip.AddrPortFrom(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}), 80))
	}
	return out
}

// smallGet returns what sends one small GET to one of n endpoints, without networks.
func smallGet(n int) func() {
	rt := &canned{http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, Header: http.Header{}}}
	w := newWorldOf(balance.Config{Transports: transports{rt, rt}}, addrs(n)...)
	r := httptest.NewRequest("GET", "/x", nil)
	r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(httptrace.GotConnInfo) {}}))
	return func() {
		resp, err := w.balancer.Exchange(r, netip.Addr{}, w.to).RoundTripper().RoundTrip(r)
		if err != nil {
			panic(err)
		}
		resp.Body.Close()
	}
}

// TestSmallGetIsCheap bounds what an exchange costs: each allocation of a small request is paid a million times.
func TestSmallGetIsCheap(t *testing.T) {
	for n, most := range map[int]float64{1: 8, 2: 11, 1000: 11} { // 3 of them are the canned RoundTripper's
		if got := testing.AllocsPerRun(1000, smallGet(n)); got > most {
			t.Errorf("of %d endpoints: a small GET allocates %v times, want %v at most", n, got, most)
		}
	}
}

// BenchmarkSmallGet is what an exchange costs of a small request.
func BenchmarkSmallGet(b *testing.B) {
	for name, n := range map[string]int{"one": 1, "ten": 10} {
		b.Run(name, func(b *testing.B) {
			get := smallGet(n)
			b.ReportAllocs()
			for b.Loop() {
				get()
			}
		})
	}
}
