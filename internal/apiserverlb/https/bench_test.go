package https_test

import (
	"fmt"
	"io"
	"net/http"
	"testing"
)

// BenchmarkRequests is a small request of a client with a certificate, straight to an API server and through here.
func BenchmarkRequests(b *testing.B) {
	s := newStage(b, nil)
	for _, a := range s.apis {
		a.answers(func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "x") })
	}
	for version := 1; version <= 2; version++ {
		for name, url := range map[string]string{"direct": s.apis[0].URL, "balanced": s.url} {
			client := s.client(b, s.clients.pair(b, "bob"), version)
			b.Run(fmt.Sprintf("%s/HTTP%d", name, version), func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(p *testing.PB) {
					for p.Next() {
						do(b, client, "GET", url+pods, nil, nil)
					}
				})
			})
		}
	}
}
