package vouch

import (
	"crypto/tls"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"sync/atomic"
	"testing"
	"time"
)

// TestUpgradesAreSentOnce wants a request that may have run a program not to be sent again when its connection breaks.
func TestUpgradesAreSentOnce(t *testing.T) {
	var seen atomic.Int64
	api := httptest.NewUnstartedServer(http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		if seen.Add(1) > 1 {
			panic(http.ErrAbortHandler)
		}
	}))
	api.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, slog.LevelError)
	api.StartTLS()
	defer api.Close()
	o := &Origin{dial: (&net.Dialer{}).DialContext, hello: 10 * time.Second}
	lane := o.newLanes(&tls.Config{InsecureSkipVerify: true}).upgrading
	for n := range 2 {
		r, err := http.NewRequestWithContext(t.Context(), "GET", api.URL+"/exec", nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header = http.Header{"Connection": {"Upgrade"}, "Upgrade": {"websocket"}}
		resp, err := lane.RoundTrip(r)
		if (err == nil) != (n == 0) {
			t.Fatalf("request %d: %v", n, err)
		}
		if err == nil {
			resp.Body.Close()
		}
	}
	if n := seen.Load(); n != 2 {
		t.Errorf("two requests came as %d", n)
	}
}

// TestWatchesHoldLittle wants an API server not to send far ahead of a client that does not read.
func TestWatchesHoldLittle(t *testing.T) {
	var sent atomic.Int64
	chunk := make([]byte, 16<<10)
	api := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		for {
			n, err := w.Write(chunk)
			if err != nil {
				return
			}
			sent.Add(int64(n))
		}
	}))
	api.EnableHTTP2 = true
	api.StartTLS()
	defer api.Close()
	o := &Origin{dial: (&net.Dialer{}).DialContext, hello: 10 * time.Second}
	r, err := http.NewRequestWithContext(t.Context(), "GET", api.URL, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := o.newLanes(&tls.Config{InsecureSkipVerify: true}).lasting.RoundTrip(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for before := int64(-1); before != sent.Load(); {
		before = sent.Load()
		time.Sleep(200 * time.Millisecond) // until no more comes
	}
	if n := sent.Load(); resp.ProtoMajor != 2 || n < streamBuffer/2 || n > 2*streamBuffer {
		t.Errorf("HTTP/%d: %d bytes were sent ahead", resp.ProtoMajor, n)
	}
}
