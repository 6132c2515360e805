package load_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"varco.dev/lab/internal/load"
)

// pods answers as pod a, b, a, b, and so on; every failEach-th request fails, if it is not 0.
func pods(t *testing.T, failEach int64) *httptest.Server {
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		i := n.Add(1)
		if failEach != 0 && i%failEach == 0 {
			w.WriteHeader(http.StatusServiceUnavailable)
			return
		}
		w.Header().Set("X-Pod", string('a'+rune(i%2)))
	}))
	t.Cleanup(s.Close)
	return s
}

func run(t *testing.T, cfg load.Config) *load.Report {
	t.Helper()
	r, err := load.Run(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestCountsAnswersAndFailures(t *testing.T) {
	s := pods(t, 5)
	var called, failed atomic.Int64
	r := run(t, load.Config{URL: s.URL, Requests: 100, Concurrency: 4, Done: func(err error) {
		called.Add(1)
		if err != nil {
			failed.Add(1)
		}
	}})
	if r.Requests != 100 || r.Failed != 20 || called.Load() != 100 || failed.Load() != 20 {
		t.Errorf("requests %d, failed %d, called %d, %d", r.Requests, r.Failed, called.Load(), failed.Load())
	}
	if diff := cmp.Diff(map[string]int{"status 503": 20}, r.Errors); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	if diff := cmp.Diff(map[string]int{"a": 40, "b": 40}, r.ByPod); diff != "" {
		t.Errorf("pods (-want +got):\n%s", diff)
	}
	if got := r.Spread(); got != "2 pods: 40 40" {
		t.Errorf("spread %q", got)
	}
	if p50, p99 := r.Latency(0.5), r.Latency(0.99); p50 <= 0 || p99 < p50 {
		t.Errorf("latencies %s, %s", p50, p99)
	}
}

func TestRefusedConnections(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	to := l.Addr().String()
	l.Close()
	for _, scheme := range []string{"http", "https", "h2c", "tcp"} {
		r := run(t, load.Config{URL: scheme + "://" + to, Requests: 3})
		want := map[string]int{"dial tcp: connect: connection refused": 3}
		if diff := cmp.Diff(want, r.Errors); diff != "" {
			t.Errorf("%s: errors (-want +got):\n%s", scheme, diff)
		}
	}
}

func TestConnectionsPerRequest(t *testing.T) {
	for _, tc := range []struct {
		name      string
		keepAlive bool
		want      int64
	}{
		{"a new one each", false, 20},
		{"kept by each sender", true, 2},
	} {
		t.Run(tc.name, func(t *testing.T) {
			s := pods(t, 0)
			var dials atomic.Int64
			dial := func(ctx context.Context, network, address string) (net.Conn, error) {
				dials.Add(1)
				return new(net.Dialer).DialContext(ctx, network, address)
			}
			// A pace without haste lets both senders take part.
			run(t, load.Config{
				URL: s.URL, Dial: dial, Requests: 20, Concurrency: 2, KeepAlive: tc.keepAlive, Rate: 200,
			})
			if got := dials.Load(); got != tc.want {
				t.Errorf("%d connections, want %d", got, tc.want)
			}
		})
	}
}

// greeter is a TCP server whose n-th connection (from 0) is treated by the n-th function, and all later ones by the last.
func greeter(t *testing.T, treat ...func(net.Conn)) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for i := 0; ; i++ {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				treat[min(i, len(treat)-1)](c)
			}()
		}
	}()
	return "tcp://" + l.Addr().String()
}

func TestTCPAnswersAreChecked(t *testing.T) {
	hello := "pod=a node=n client=c\n"
	echo := func(c net.Conn) { io.WriteString(c, hello); io.Copy(c, c) }
	liar := func(c net.Conn) {
		io.WriteString(c, hello)
		bufio.NewReader(c).ReadString('\n')
		io.WriteString(c, "other\n")
	}
	hangsUp := func(net.Conn) {}
	stranger := func(c net.Conn) { io.WriteString(c, "220 mail\n"); io.Copy(c, c) }
	to := greeter(t, echo, liar, hangsUp, stranger, echo)
	r := run(t, load.Config{URL: to, Requests: 10})
	want := map[string]int{
		`sent "request 1\n", and "other\n" came back`:  1,
		"read greeting: EOF":                           1,
		"the answer names no pod: not the test server": 1,
	}
	if diff := cmp.Diff(want, r.Errors); diff != "" {
		t.Errorf("errors (-want +got):\n%s", diff)
	}
	if r.ByPod["a"] != 7 {
		t.Errorf("pods %v", r.ByPod)
	}
}

func TestSilenceIsBounded(t *testing.T) {
	udp, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer udp.Close()
	silent := greeter(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	for _, tc := range []struct{ url, want string }{
		{"udp://" + udp.LocalAddr().String(), "read udp: no answer within 50ms"},
		{silent, "read tcp: no answer within 50ms"},
		{strings.Replace(silent, "tcp", "http", 1), "no answer within 50ms"},
	} {
		begin := time.Now()
		r := run(t, load.Config{URL: tc.url, Requests: 2, Timeout: 50 * time.Millisecond})
		if diff := cmp.Diff(map[string]int{tc.want: 2}, r.Errors); diff != "" {
			t.Errorf("%s: errors (-want +got):\n%s", tc.url, diff)
		}
		if took := time.Since(begin); took > 2*time.Second {
			t.Errorf("%s: took %s", tc.url, took)
		}
	}
}

func TestHoldKeepsRequestsComing(t *testing.T) {
	s := pods(t, 0)
	hold := make(chan struct{})
	var n atomic.Int64
	r := run(t, load.Config{URL: s.URL, Requests: 5, Hold: hold, Done: func(error) {
		if n.Add(1) == 20 {
			close(hold)
		}
	}})
	if r.Requests < 20 || r.Requests > 22 {
		t.Errorf("%d requests, want 20 or one or two more", r.Requests)
	}
}

func TestRateIsKept(t *testing.T) {
	s := pods(t, 0)
	begin := time.Now()
	run(t, load.Config{URL: s.URL, Requests: 21, Concurrency: 10, Rate: 100})
	if took := time.Since(begin); took < 190*time.Millisecond {
		t.Errorf("21 requests at 100 a second took %s", took)
	}
}

func TestInterruptCountsNoFailure(t *testing.T) {
	silent := greeter(t, func(c net.Conn) { io.Copy(io.Discard, c) })
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	begin := time.Now()
	r, err := load.Run(ctx, load.Config{URL: silent, Requests: 1000, Concurrency: 3, Timeout: time.Hour})
	if err != nil || r.Requests != 0 || r.Failed != 0 {
		t.Errorf("got %d requests, %d failed, %v", r.Requests, r.Failed, err)
	}
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("took %s", took)
	}
}

func TestBadConfig(t *testing.T) {
	for _, url := range []string{"", "ftp://10.0.0.1", "http://name/", "tcp://10.0.0.1", "tcp://name:80", "udp://[::1]", ":"} {
		if _, err := load.Run(t.Context(), load.Config{URL: url, Requests: 1}); err == nil {
			t.Errorf("%q: no error", url)
		}
	}
}

func TestErrorsAreBounded(t *testing.T) {
	var n atomic.Int64
	dial := func(context.Context, string, string) (net.Conn, error) {
		return nil, fmt.Errorf("failure %d", n.Add(1)%40)
	}
	r := run(t, load.Config{URL: "tcp://127.0.0.1:1", Dial: dial, Requests: 400})
	if len(r.Errors) > 17 || r.Failed != 400 {
		t.Errorf("%d reasons for %d failures", len(r.Errors), r.Failed)
	}
	sum := 0
	for _, n := range r.Errors {
		sum += n
	}
	if sum != 400 {
		t.Errorf("the reasons account for %d of 400", sum)
	}
}

func TestReportsAddUp(t *testing.T) {
	s := pods(t, 0)
	sum := load.NewReport()
	for range 3 {
		sum.Add(run(t, load.Config{URL: s.URL, Requests: 4}))
	}
	bad := errors.New("no route")
	dial := func(context.Context, string, string) (net.Conn, error) { return nil, bad }
	sum.Add(run(t, load.Config{URL: s.URL, Dial: dial, Requests: 2}))
	if sum.Requests != 14 || sum.Failed != 2 || sum.ByPod["a"] != 6 || sum.ByPod["b"] != 6 {
		t.Errorf("sum %d requests, %d failed, pods %v", sum.Requests, sum.Failed, sum.ByPod)
	}
	if diff := cmp.Diff([]string{"2 × no route"}, sum.Failures()); diff != "" {
		t.Errorf("failures (-want +got):\n%s", diff)
	}
}

func TestShow(t *testing.T) {
	web := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		io.WriteString(w, "short and stout\n")
	}))
	defer web.Close()
	hello := "pod=a node=n client=c\n"
	tcp := greeter(t, func(c net.Conn) { io.WriteString(c, hello); io.Copy(c, c) })
	for url, want := range map[string]string{
		web.URL: "HTTP/1.1 418 I'm a teapot\nshort and stout\n",
		tcp:     hello,
	} {
		var b strings.Builder
		if err := load.Show(t.Context(), load.Config{URL: url}, &b); err != nil || b.String() != want {
			t.Errorf("%s: got %q, %v, want %q", url, b.String(), err, want)
		}
	}
	if err := load.Show(t.Context(), load.Config{URL: "tcp://127.0.0.1:1"}, io.Discard); err == nil {
		t.Error("no error where nothing listens")
	}
}
