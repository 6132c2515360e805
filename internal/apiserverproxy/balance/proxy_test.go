package balance_test

import (
	"bytes"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"testing"

	"varco.dev/internal/httpproxy"
)

// TestBehindProxy has clients of a proxy send bodies while one of three endpoints refuses connections.
func TestBehindProxy(t *testing.T) {
	a, _ := good(t)
	b, _ := good(t)
	broken, _ := faults["reset after the header"](t)
	w := newWorld(t, a, refusing(t), b)
	proxy := httpproxy.New(httpproxy.Config{Log: slog.New(slog.DiscardHandler)})
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		x := w.balancer.Exchange(r, netip.Addr{}, w.to)
		proxy.Serve(rw, r, httpproxy.Target{Scheme: "http", Host: "web", RoundTripper: x.RoundTripper(), Upgrade: x.Upgrade()})
	}))
	t.Cleanup(front.Close)
	send := func(method string, body []byte, known bool) (int, []byte) {
		var content io.Reader = bytes.NewReader(body)
		if !known {
			content = io.MultiReader(content) // chunked
		}
		r, err := http.NewRequestWithContext(t.Context(), method, front.URL, content)
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		resp, err := front.Client().Do(r)
		if err != nil {
			t.Error(err)
			return 0, nil
		}
		defer resp.Body.Close()
		got, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Error(err)
		}
		return resp.StatusCode, got
	}
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			for n := range 20 {
				body := bytes.Repeat([]byte{byte(i), byte(n)}, 1+n*10000)
				if code, got := send("POST", body, n%2 == 0); code != http.StatusOK || !bytes.Equal(got, body) {
					t.Errorf("got %d and %d bytes, want the %d that were sent", code, len(got), len(body))
				}
			}
		})
	}
	wg.Wait()
	if got := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_retries_total", "connect"); got == 0 {
		t.Error("nothing was sent again")
	}
	w.to = destination(broken)
	if code, _ := send("POST", []byte("hello"), true); code != http.StatusBadGateway {
		t.Errorf("got %d of an endpoint that breaks the connection", code)
	}
}
