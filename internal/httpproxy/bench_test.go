package httpproxy_test

import (
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"strconv"
	"strings"
	"testing"

	"varco.dev/internal/httpproxy"
)

// canned is a RoundTripper that knows the answer.
type canned struct{ answer http.Response }

func (c *canned) RoundTrip(r *http.Request) (*http.Response, error) {
	answer := c.answer
	answer.Request = r
	answer.Body = io.NopCloser(strings.NewReader(status))
	return &answer, nil
}

const status = `{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Success"}`

// nowhere is a ResponseWriter that keeps nothing.
type nowhere struct{ header http.Header }

func (n nowhere) Header() http.Header         { return n.header }
func (n nowhere) Write(p []byte) (int, error) { return len(p), nil }
func (n nowhere) WriteHeader(int)             {}
func (n nowhere) Flush()                      {}

// smallGet returns what serves one small GET, without networks around it.
func smallGet() func() {
	rt := &canned{http.Response{StatusCode: 200, ProtoMajor: 1, ProtoMinor: 1, ContentLength: int64(len(status)), Header: http.Header{
		"Content-Type": {"application/json"}, "Content-Length": {strconv.Itoa(len(status))}, "Date": {"Sat, 28 Nov 2026 06:51:36 GMT"},
		"Audit-Id": {"a"}, "Cache-Control": {"no-cache, private"}, "X-Kubernetes-Pf-Flowschema-Uid": {"a"},
	}}}
	p := httpproxy.New(httpproxy.Config{Log: slog.New(slog.DiscardHandler)})
	to := httpproxy.Target{Scheme: "https", Host: "10.0.0.1:6443", RoundTripper: rt, Upgrade: rt}
	r := httptest.NewRequest("GET", "/api/v1/namespaces/default/pods/x", nil)
	r.Header = http.Header{"Accept": {"*/*"}, "User-Agent": {"curl"}, "Accept-Encoding": {"gzip"}}
	w := nowhere{http.Header{}}
	return func() {
		clear(w.header)
		p.Serve(w, r, to)
	}
}

// TestSmallGetIsCheap bounds what the proxy itself costs: each allocation of a small request is paid a million times.
func TestSmallGetIsCheap(t *testing.T) {
	const most = 14 // 3 of them are the canned RoundTripper's
	if got := testing.AllocsPerRun(1000, smallGet()); got > most {
		t.Errorf("a small GET allocates %v times, want %d at most", got, most)
	}
}

// BenchmarkSmallGet is what the proxy itself costs of a small request.
func BenchmarkSmallGet(b *testing.B) {
	get := smallGet()
	b.ReportAllocs()
	for b.Loop() {
		get()
	}
}

// BenchmarkBulk is a large answer on its way from TLS through the proxy to a client that speaks no TLS.
func BenchmarkBulk(b *testing.B) {
	const size = 64 << 20
	chunk := make([]byte, 256<<10)
	w := newWorld(b, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		for range size / len(chunk) {
			w.Write(chunk)
		}
	})
	client := w.client(b, false)
	client.Timeout = 0
	buf := make([]byte, 1<<20)
	for _, path := range []string{"/known", "/unknown"} {
		b.Run(path[1:], func(b *testing.B) {
			b.SetBytes(size)
			for b.Loop() {
				resp, err := client.Get(w.front.URL + path)
				if err != nil {
					b.Fatal(err)
				}
				n, err := io.CopyBuffer(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{resp.Body}, buf)
				if resp.Body.Close(); n != size || err != nil {
					b.Fatal(n, err)
				}
			}
		})
	}
}
