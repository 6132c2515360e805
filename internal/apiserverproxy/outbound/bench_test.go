package outbound_test

import (
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"runtime"
	"testing"

	"varco.dev/internal/apiserverproxy/outbound"
)

// BenchmarkRoundTrip has 64 clients ask for 1 KiB by each way to a target, which is in the same process.
func BenchmarkRoundTrip(b *testing.B) {
	kib := make([]byte, 1<<10)
	small := func(w http.ResponseWriter, r *http.Request) { w.Write(kib) }
	for _, way := range []struct {
		name   string
		scheme string
		kind   func(*httptest.Server) bool
		wrap   func(http.RoundTripper) http.RoundTripper
	}{
		{"http", "http", plain, nil},
		{"https", "https", withHTTP2, nil},
		{"https by HTTP2", "https", withHTTP2, func(rt http.RoundTripper) http.RoundTripper { return asGRPC{rt} }},
		{"h2c", "h2c", withH2C, nil},
	} {
		b.Run(way.name, func(b *testing.B) {
			server := newTarget(b, small, way.kind)
			o := loose(b, outbound.Config{})
			b.SetParallelism(max(1, 64/runtime.GOMAXPROCS(0)))
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				for pb.Next() {
					rt := o.RoundTripper(outbound.Profile{Scheme: way.scheme})
					if way.wrap != nil {
						rt = way.wrap(rt)
					}
					resp, err := rt.RoundTrip(request(b, "GET", server.URL, ""))
					if err != nil {
						b.Error(err)
						return
					}
					io.Copy(io.Discard, resp.Body)
					resp.Body.Close()
				}
			})
			all, _ := server.connections()
			b.ReportMetric(float64(all), "connections")
		})
	}
}

// BenchmarkProfile looks a profile up, as each request does.
func BenchmarkProfile(b *testing.B) {
	o := loose(b, outbound.Config{})
	p := outbound.Profile{Scheme: "https", CA: string(make([]byte, 2<<10)), ServerName: "web.default.svc"}
	b.ReportAllocs()
	for b.Loop() {
		o.RoundTripper(p)
	}
}

// BenchmarkRefused looks at an address, as each dial does.
func BenchmarkRefused(b *testing.B) {
	a := netip.MustParseAddr("2001:db8::1")
	b.ReportAllocs()
	for b.Loop() {
		if outbound.Refused(a) != "" {
			b.Fatal("refused")
		}
	}
}
