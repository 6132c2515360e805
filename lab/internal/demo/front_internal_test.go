package demo

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
)

// frontOf has clients that reach a server of the test, whatever they ask for.
func frontOf(t *testing.T, h http.HandlerFunc) (*front, *strings.Builder) {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	c := &http.Client{Transport: &http.Transport{
		DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, s.Listener.Addr().String())
		},
	}}
	t.Cleanup(c.CloseIdleConnections)
	out := &strings.Builder{}
	return &front{console: newConsole(out), outside: c, local: c}, out
}

func TestFrontTally(t *testing.T) {
	var n atomic.Int64
	f, _ := frontOf(t, func(w http.ResponseWriter, _ *http.Request) {
		i := n.Add(1)
		w.Header().Set("X-Pod", fmt.Sprint("echo-", i%2))
		if i%9 == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
		}
	})
	byPod, failed := f.tally(t.Context(), "http://front.test/")
	if want := fmt.Sprintf("echo-0 %d, echo-1 %[1]d", (frontRequests-frontRequests/9)/2); counts(byPod) != want || failed != frontRequests/9 {
		t.Errorf("%s answered and %d failed, want %s and %d", counts(byPod), failed, want, frontRequests/9)
	}
}

func TestFrontRetries(t *testing.T) {
	text := "# TYPE " + retriesMetric + " counter\n" + retriesMetric + "{why=\"connect\"} 3\n" + retriesMetric + "{why=\"stale\"} 2\nother 7\n"
	f, _ := frontOf(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, text) })
	if n, err := f.retries(t.Context()); n != 5 || err != nil {
		t.Errorf("%d, %v; want 5", n, err)
	}
	text = retriesMetric + " many\n"
	if n, err := f.retries(t.Context()); err == nil {
		t.Errorf("%d, want an error", n)
	}
}

// Rows with another status, or another pod than was asked for, are wrong.
func TestFrontShowsWhatIsWrong(t *testing.T) {
	f, _ := frontOf(t, func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Pod", "echo-1")
		if strings.Contains(r.URL.Path, "/nodes/") {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	f.outside.Transport.(*http.Transport).DialTLSContext = f.outside.Transport.(*http.Transport).DialContext
	for pod, want := range map[string]int{"echo-1": 1, "echo-2": 2} {
		var table strings.Builder
		if got := f.ways(t.Context(), &table, pod); got != want || strings.Count(table.String(), "✗") != want {
			t.Errorf("pod %s: %d rows are wrong, want %d:\n%s", pod, got, want, table.String())
		}
	}
}
