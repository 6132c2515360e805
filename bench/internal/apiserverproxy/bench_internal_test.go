package apiserverproxy

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"flag"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/http/httputil"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/util/cert"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/report"
)

// TestMain makes this program what the bench starts: the targets, and both proxies.
func TestMain(m *testing.M) {
	args := os.Args[1:]
	if len(args) == 0 || strings.HasPrefix(args[0], "-test.") {
		os.Exit(m.Run())
	}
	if err := child(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(args []string) error {
	if args[0] == "stand-in" {
		return standIn(args[1:])
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cmd := Command()
	cmd.SetArgs(args[1:])
	return cmd.ExecuteContext(ctx)
}

// standIn is the least that can be measured: it leads to one endpoint after the other.
func standIn(args []string) error {
	f := flag.NewFlagSet("stand-in", flag.ContinueOnError)
	at, pki, small, page := f.String("at", "", ""), f.String("cert", "", ""), f.Int("small", 0, ""), f.Int("page", 0, "")
	if err := f.Parse(args); err != nil {
		return err
	}
	var n atomic.Int64
	h := &httputil.ReverseProxy{
		FlushInterval: -1,
		ErrorLog:      slog.NewLogLogger(slog.DiscardHandler, slog.LevelDebug),
		Rewrite: func(r *httputil.ProxyRequest) {
			service, rest, _ := strings.Cut(r.In.URL.Path, "/proxy")
			addresses, port := testAddresses()[:endpoints], *small
			if strings.Contains(service, oneDead) {
				addresses = testAddresses()[1:]
			}
			if strings.HasSuffix(service, pagePort) {
				port = *page
			}
			to := addresses[int(n.Add(1))%len(addresses)]
			r.Out.URL.Scheme, r.Out.URL.Host, r.Out.URL.Path = "http", netip.AddrPortFrom(to, uint16(port)).String(), rest
		},
		ErrorHandler: func(w http.ResponseWriter, _ *http.Request, err error) {
			http.Error(w, err.Error(), http.StatusServiceUnavailable)
		},
	}
	mux := http.NewServeMux()
	mux.Handle("/", h)
	mux.HandleFunc("/metrics", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "# HELP\n%s 524288\n%s 1024\n", heapMetric, stacksMetric)
	})
	return http.ListenAndServeTLS(*at, *pki+".crt", *pki+".key", mux)
}

// testAddresses are those of the targets and one more, which is nobody's.
func testAddresses() (out []netip.Addr) {
	for i := range endpoints + 1 {
		out = append(out, netip.AddrFrom4([4]byte{127, 77, 0, byte(1 + i)}))
	}
	return out
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// world are stand-ins for a control plane and a front.
type world struct {
	dir                    string
	small, page, api, port uint16
	trust                  *tls.Config
	opened, closed         int
}

func newWorld(t *testing.T) *world {
	t.Helper()
	w := &world{dir: t.TempDir(), small: freePort(t), page: freePort(t), api: freePort(t), port: freePort(t)}
	host := "127.0.0.1"
	pem, key, err := cert.GenerateSelfSignedCertKey(host, []net.IP{net.ParseIP(host)}, nil)
	if err != nil {
		t.Fatal(err)
	}
	for ext, b := range map[string][]byte{".crt": pem, ".key": key} {
		if err := os.WriteFile(filepath.Join(w.dir, "tls"+ext), b, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	w.trust = &tls.Config{ServerName: host, RootCAs: x509.NewCertPool()}
	w.trust.RootCAs.AppendCertsFromPEM(pem)
	return w
}

func (w *world) program(at netip.AddrPort) contender.Contender {
	self, err := os.Executable()
	if err != nil {
		panic(err)
	}
	return contender.Contender{Name: "stand-in", Path: self, Args: []string{"stand-in", "--at", at.String(),
		"--cert", filepath.Join(w.dir, "tls"), fmt.Sprintf("--small=%d", w.small), fmt.Sprintf("--page=%d", w.page)}}
}

func (w *world) open(ctx context.Context, _ bool, dir string) (*place, error) {
	w.opened++
	p := &place{apiserver: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), w.api), frontPort: w.port,
		administrator: w.trust, stranger: w.trust, token: "a-token"}
	api, err := contender.Start(nil, w.program(p.apiserver), filepath.Join(dir, "api.log"))
	if err != nil {
		return nil, err
	}
	p.cluster = map[string]contender.PID{processAPI: api.PID(), processEtcd: api.PID()}
	p.end = func() error { w.closed++; api.Stop(); return nil }
	return p, p.serveTargets(ctx, dir, testAddresses(), w.small, w.page)
}

// smallest is a run of seconds.
func smallest() Plan {
	return Plan{Rounds: 1, Connections: []int{1, 4}, GetTime: 200 * time.Millisecond, Warm: 10 * time.Millisecond,
		Loads: []int{10, 20}, PaceTime: 200 * time.Millisecond, Sockets: 5, PageMiB: 2, PageTime: 250 * time.Millisecond, Gap: 10 * time.Millisecond,
		Flows: []int{10, 20}, FlowTime: 200 * time.Millisecond}
}

func TestWholeRun(t *testing.T) {
	w := newWorld(t)
	b := &Bench{plan: smallest(), open: w.open, dir: t.TempDir(), log: slog.New(slog.DiscardHandler), entrants: []entrant{
		{name: varco, front: w.program, metrics: "/metrics"}, {name: peer, metrics: "/metrics"}, {name: inside, inside: true, metrics: "/metrics"}}}
	s, err := b.run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if w.opened != 4 || w.closed != 4 {
		t.Errorf("opened %d places and closed %d, want 2 with varco inside and 2 without", w.opened, w.closed)
	}
	var text bytes.Buffer
	if err := writeText(&text, s); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"## Small GETs to a Service on 4 connections", "## Small GETs to a Service at 20 % of",
		"## An HTML page of 2 MiB", "## An HTML page that comes in parts", "## 5 idle WebSockets", "## 20 Mbit/s for one client",
		"| measure | varco | kube-apiserver | varco inside | varco ÷ kube-apiserver | bar | kept |", "| connections | "} {
		if !strings.Contains(text.String(), want) {
			t.Errorf("no %q in the report:\n%s", want, text.String())
		}
	}
	looked(t, s)
}

// looked checks what even stand-ins must give.
func looked(t *testing.T, s report.Samples) {
	t.Helper()
	for _, name := range []string{varco, peer, inside} {
		for _, c := range []struct {
			measure   string
			size      int
			low, high float64
		}{
			{getRate, 4, 10, 1e6}, {getP99, 4, 0.01, 1e4}, {spread, 4, 1, 10}, {getCPU, 4, 0.1, 1e5}, {tokenRate, mainConnections, 10, 1e6},
			{deadFailed, mainConnections, 2, 25}, {paceP99, 10, 0.01, 1e4}, {firstMillis, one, 0.01, 1e4}, {wholeMillis, one, 20, 1e4},
			{pageRate, 2, 0.1, 1e6}, {pageHeapMiB, 2, -1, 1}, {flowRate, 20, 0.5, 21}, {flowCPU, 20, 0, 300}, {socketKiB, 5, -1e5, 1e5}, {socketUsedKiB, 5, 0, 0},
		} {
			v := s.Of(name, c.measure, c.size)
			if len(v) != 1 || v[0] < c.low || v[0] > c.high {
				t.Errorf("%s of %s at %d: got %v, want one from %v to %v", c.measure, name, c.size, v, c.low, c.high)
			}
		}
	}
}

func TestFailureTellsWhatFailed(t *testing.T) {
	w := newWorld(t)
	bad := func(netip.AddrPort) contender.Contender {
		return contender.Contender{Name: "bad", Path: "sh", Args: []string{"-c", "echo no such flag; exit 2"}}
	}
	b := &Bench{plan: smallest(), open: w.open, dir: t.TempDir(), log: slog.New(slog.DiscardHandler),
		entrants: []entrant{{name: varco, front: bad}}}
	if _, err := b.run(t.Context()); err == nil || !strings.Contains(err.Error(), "no such flag") {
		t.Errorf("got %v, want what the program wrote", err)
	}
	if w.opened != 1 || w.closed != 1 {
		t.Errorf("opened %d places and closed %d", w.opened, w.closed)
	}
	broken := errors.New("broken")
	b.open = func(context.Context, bool, string) (*place, error) { return nil, broken }
	if _, err := b.run(t.Context()); !errors.Is(err, broken) {
		t.Errorf("got %v, want %v", err, broken)
	}
}

func TestMemoryInMetrics(t *testing.T) {
	const heap, stacks = heapMetric + " 1.5e+06\n", "# TYPE x gauge\n" + stacksMetric + " 7\n"
	if got, err := memoryIn(strings.NewReader(heap + heapMetric + "_total 5\n" + stacks)); got.heap != 1500000 || got.stacks != 7 || got.all() != 1500007 || err != nil {
		t.Errorf("got %+v, %v", got, err)
	}
	for _, bad := range []string{heap, stacks, heap + stacksMetric + " many\n"} {
		if got, err := memoryIn(strings.NewReader(bad)); err == nil {
			t.Errorf("%q: got %+v", bad, got)
		}
	}
}
