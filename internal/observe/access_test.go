package observe_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"varco.dev/internal/observe"
)

// access is a server behind Access.
type access struct {
	*httptest.Server
	metrics http.Handler
	log     *bytes.Buffer // to be read when the server is closed
}

func newAccess(t *testing.T, verbosity int, h http.HandlerFunc) access {
	t.Helper()
	a := access{log: &bytes.Buffer{}}
	log := slog.New(slog.NewTextHandler(a.log, &slog.HandlerOptions{Level: slog.LevelInfo - slog.Level(verbosity)}))
	metrics, registry := observe.NewAccessMetrics(), prometheus.NewRegistry()
	registry.MustRegister(metrics)
	a.metrics = promhttp.HandlerFor(registry, promhttp.HandlerOpts{})
	a.Server = httptest.NewUnstartedServer(observe.Access(log, metrics, h))
	a.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0)
	a.Start()
	t.Cleanup(a.Close)
	return a
}

func (a access) do(t *testing.T, method, path, body string) {
	t.Helper()
	var reader io.Reader
	if body != "" {
		reader = struct{ io.Reader }{strings.NewReader(body)} // of unknown length
	}
	r, err := http.NewRequestWithContext(t.Context(), method, a.URL+path, reader)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := a.Client().Do(r)
	if err != nil {
		return // it was to be cut
	}
	io.Copy(io.Discard, resp.Body)
	resp.Body.Close()
}

func (a access) want(t *testing.T, wanted ...string) {
	t.Helper()
	got := samples(a.metrics, "/")
	for _, s := range wanted {
		if !slices.Contains(got, s) {
			t.Errorf("%s is not in\n%s", s, strings.Join(got, "\n"))
		}
	}
}

// answers is a handler with answers of all kinds.
func answers(w http.ResponseWriter, r *http.Request) {
	switch r.URL.Path {
	case "/early":
		w.WriteHeader(103)
		w.WriteHeader(404)
	case "/cut":
		panic(http.ErrAbortHandler)
	case "/half":
		fmt.Fprint(w, "half")
		w.(http.Flusher).Flush()
		panic(http.ErrAbortHandler)
	case "/long":
		w.(interface{ MarkLongRunning() }).MarkLongRunning()
	case "/file":
		io.Copy(w, strings.NewReader("12345"))
	default:
		io.Copy(w, r.Body)
	}
}

// TestAccessMetrics wants each request to be counted once, under few labels.
func TestAccessMetrics(t *testing.T) {
	a := newAccess(t, 0, answers)
	a.do(t, "POST", "/", "123")
	a.do(t, "GET", "/file", "")
	a.do(t, "GET", "/early", "")
	a.do(t, "GET", "/long", "")
	a.do(t, "GET", "/cut", "")
	a.do(t, "GET", "/half", "")
	a.do(t, "INVENTED", "/", "")
	a.do(t, "TOO", "/", "")
	a.Close()
	a.want(t,
		`varco_http_requests_total{code="200",method="POST"} 1`,
		`varco_http_requests_total{code="200",method="GET"} 3`,
		`varco_http_requests_total{code="404",method="GET"} 1`,
		`varco_http_requests_total{code="200",method="other"} 2`,
		`varco_http_sent_bytes_total 12`,
		`varco_http_received_bytes_total 3`,
		`varco_http_requests_in_flight 0`,
		`varco_http_upgrades_open 0`,
	)
	if all := strings.Join(samples(a.metrics, "/"), "\n"); !strings.Contains(all, `varco_http_requests_total{code="499",method="GET"}`) {
		t.Errorf("a request without an answer is not in\n%s", all)
	}
	if a.log.Len() > 0 {
		t.Errorf("at verbosity 0 the log has %s", a.log)
	}
}

// TestAccessDurations wants answers that take as long as their clients like to be left out.
func TestAccessDurations(t *testing.T) {
	a := newAccess(t, 0, answers)
	a.do(t, "GET", "/file", "")
	a.do(t, "GET", "/long", "")
	a.Close()
	a.want(t, `varco_http_request_duration_seconds_count 1`)
}

// TestAccessLog wants one line for each request, and no credentials in it.
func TestAccessLog(t *testing.T) {
	a := newAccess(t, 3, answers)
	a.do(t, "POST", "/x%2Fy?watch=1&varco-token=SECRET&%76arco-token=SECRET&access_token=SECRET&b", "123")
	a.do(t, "GET", "/token/SECRET/api?x", "")
	a.do(t, "GET", "/token/SECRET", "")
	a.do(t, "GET", "/half", "")
	a.Close()
	got := regexp.MustCompile(`took=\S+ remote=127.0.0.1:\d+`).ReplaceAllString(a.log.String(), "T")
	got = regexp.MustCompile(`time=\S+ `).ReplaceAllString(got, "")
	got = strings.ReplaceAll(got, a.Listener.Addr().String(), "H")
	for _, line := range []string{
		`level=DEBUG+1 msg=request method=POST host=H path=/x%2Fy query="watch=1&varco-token=...&%76arco-token=...&access_token=...&b" code=200 sent=3 received=3 T` + "\n",
		`level=DEBUG+1 msg=request method=GET host=H path=/token/.../api query=x code=200 sent=0 received=0 T` + "\n",
		`level=DEBUG+1 msg=request method=GET host=H path=/token/... code=200 sent=0 received=0 T` + "\n",
		`level=DEBUG+1 msg=request method=GET host=H path=/half code=200 sent=4 received=0 T cut=true` + "\n",
	} {
		if !strings.Contains(got, line) {
			t.Errorf("%sis not in\n%s", line, got)
		}
	}
	if strings.Contains(got, "SECRET") {
		t.Errorf("a credential is in\n%s", got)
	}
}

// TestAccessUpgrades wants an upgraded connection to be open until its handler returns, and its bytes to be counted.
func TestAccessUpgrades(t *testing.T) {
	opened, next := make(chan struct{}), make(chan struct{})
	a := newAccess(t, 3, func(w http.ResponseWriter, _ *http.Request) {
		conn, rw, err := http.NewResponseController(w).Hijack()
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		io.WriteString(conn, "12345")
		io.ReadFull(rw, make([]byte, 3))
		if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
			t.Error(err)
		}
		close(opened)
		<-next
	})
	conn, err := net.Dial("tcp", a.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.WriteString(conn, "GET / HTTP/1.1\r\nHost: a\r\n\r\nabc")
	<-opened
	a.want(t, `varco_http_upgrades_open 1`, `varco_http_requests_in_flight 1`, `varco_http_sent_bytes_total 5`)
	close(next)
	if got, err := io.ReadAll(conn); string(got) != "12345" || err != nil {
		t.Errorf("got %q and %v", got, err)
	}
	a.Close()
	for tries := 0; !slices.Contains(samples(a.metrics, "/"), `varco_http_upgrades_open 0`); tries++ {
		if tries == 1000 {
			t.Fatal("the upgrade stays open")
		}
		time.Sleep(time.Millisecond) // nobody tells of it
	}
	a.want(t, `varco_http_requests_total{code="101",method="GET"} 1`, `varco_http_request_duration_seconds_count 0`)
}

// TestAccessReachesBelow wants what http.ResponseController can do to reach the server, deadlines for one.
func TestAccessReachesBelow(t *testing.T) {
	done := make(chan struct{})
	a := newAccess(t, 0, func(w http.ResponseWriter, r *http.Request) {
		defer close(done)
		c := http.NewResponseController(w)
		for name, err := range map[string]error{"Flush": c.Flush(), "EnableFullDuplex": c.EnableFullDuplex()} {
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		}
		if _, ok := w.(io.ReaderFrom); !ok {
			t.Error("files are copied")
		}
	})
	a.do(t, "GET", "/", "")
	<-done
}

// TestAccessIsCheap bounds what a request costs that is not logged.
func TestAccessIsCheap(t *testing.T) {
	h := observe.Access(slog.New(slog.DiscardHandler), observe.NewAccessMetrics(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) }))
	w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(context.Background(), "GET", "/", nil)
	if got := testing.AllocsPerRun(1000, func() { h.ServeHTTP(w, r) }); got > 1 {
		t.Errorf("a request allocates %v times", got)
	}
}

// BenchmarkAccess is what counting a request costs.
func BenchmarkAccess(b *testing.B) {
	h := observe.Access(slog.New(slog.DiscardHandler), observe.NewAccessMetrics(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(200) }))
	w, r := httptest.NewRecorder(), httptest.NewRequestWithContext(context.Background(), "GET", "/", nil)
	b.ReportAllocs()
	for b.Loop() {
		h.ServeHTTP(w, r)
	}
}
