//go:build linux

package cli_test

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"varco.dev/internal/nettest"
)

func TestAPIServerLBBadFlags(t *testing.T) {
	good := "--listen 127.0.0.1:7443 --backend 127.0.0.1:6443 "
	file := filepath.Join(t.TempDir(), "lb.yaml")
	text := "apiVersion: apiserverlb.varco.dev/v1alpha1\nkind: APIServerLBConfiguration\nlisteners: [{adress: 127.0.0.1:1}]\n"
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	open := t.TempDir()
	if err := os.Chmod(open, 0o777); err != nil {
		t.Fatal(err)
	}
	for args, want := range map[string]string{
		"":                                                       "backends.static",
		"--backend 127.0.0.1:6443":                               "listeners",
		good + "--listen here":                                   "listeners[1].address",
		good + "--backend [::1:1":                                "backends.static[1]",
		good + "--listen 127.0.0.1:7443":                         "listeners[1]",
		good + "--ca-file /nonexistent":                          "health.caFile",
		good + "--client-certificate /nonexistent":               "health.",
		good + "--max-connections=-1":                            "limits.connections",
		good + "--shutdown-delay=-1s":                            "drain.shutdownDelay",
		good + "--proxy-protocol-from here":                      "proxyProtocol.from[0]",
		good + "--logging-format xml":                            `--logging-format: "xml" is none of text, json`,
		good + "--metrics-address here":                          "metricsAddress",
		good + "--config /nonexistent":                           "--config: ",
		good + "--config " + file:                                "adress",
		good + "--handover-socket /proc/self/status/x":           "handoverSocket",
		good + "--handover-socket " + open + "/socket":           "others may write to the folder",
		good + "surplus":                                         "unknown command",
		"--backend 127.0.0.1:1 --proxy-protocol-from 10.0.0.0/8": "--proxy-protocol-from is for the addresses of --listen",
		"status --metrics-address 127.0.0.1:1":                   "is it running",
		"status --output xml --metrics-address 127.0.0.1:1":      "is it running",
	} {
		said, err := execute(t, append([]string{"apiserver-lb", "--check"}, strings.Fields(args)...)...)
		if strings.HasPrefix(args, "status") {
			said, err = execute(t, append([]string{"apiserver-lb"}, strings.Fields(args)...)...)
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("varco apiserver-lb %s: got error %v, want %q; printed %s", args, err, want, said)
		}
	}
	if said, err := execute(t, append([]string{"apiserver-lb", "--check"}, strings.Fields(good)...)...); err != nil || said != "the configuration is right\n" {
		t.Errorf("--check: %q, %v", said, err)
	}
}

// lbStage is a balancer's configuration over two API servers, which answer with their names.
type lbStage struct {
	t            *testing.T
	file, at     string
	metrics      string
	servers      []*httptest.Server
	client       *http.Client // a new connection for each request
	healthConfig string
}

func newLBStage(t *testing.T) *lbStage {
	t.Helper()
	dir := t.TempDir()
	s := &lbStage{t: t, file: filepath.Join(dir, "lb.yaml"), at: fmt.Sprintf("127.0.0.1:%d", freePort(t)), metrics: fmt.Sprintf("127.0.0.1:%d", freePort(t))}
	for _, name := range []string{"one", "two"} {
		server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			if r.URL.Path == "/watch" {
				_ = http.NewResponseController(w).Flush()
				<-r.Context().Done()
			}
			_, _ = io.WriteString(w, name)
		}))
		t.Cleanup(func() {
			server.CloseClientConnections()
			server.Close()
		})
		s.servers = append(s.servers, server)
	}
	roots := x509.NewCertPool()
	roots.AddCert(s.servers[0].Certificate())
	s.client = &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: roots}}, Timeout: 10 * time.Second}
	ca := filepath.Join(dir, "ca.crt")
	if err := os.WriteFile(ca, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.servers[0].Certificate().Raw}), 0o600); err != nil {
		t.Fatal(err)
	}
	s.healthConfig = "health: {caFile: " + ca + "}\nhandoverSocket: " + filepath.Join(dir, "socket") + "\n"
	return s
}

// write writes the file with these servers as backends.
func (s *lbStage) write(servers ...*httptest.Server) {
	s.t.Helper()
	var backends []string
	for _, b := range servers {
		backends = append(backends, b.Listener.Addr().String())
	}
	text := fmt.Sprintf("apiVersion: apiserverlb.varco.dev/v1alpha1\nkind: APIServerLBConfiguration\nlisteners: [{address: %q}]\nbackends: {static: [%s]}\nmetricsAddress: %s\ndrain: {timeout: 5s}\n%s",
		s.at, strings.Join(backends, ", "), s.metrics, s.healthConfig)
	if err := os.WriteFile(s.file, []byte(text), 0o600); err != nil {
		s.t.Fatal(err)
	}
}

// lbProcess is a balancer that runs.
type lbProcess struct {
	*exec.Cmd
	said  *nettest.Journal
	ended chan error
	stop  context.CancelFunc
}

func (s *lbStage) start() *lbProcess {
	s.t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	p := &lbProcess{varco(ctx, "apiserver-lb", "--config", s.file), &nettest.Journal{}, make(chan error, 1), cancel}
	p.Stdout, p.Stderr = p.said, p.said
	if err := p.Start(); err != nil {
		s.t.Fatal(err)
	}
	go func() { p.ended <- p.Wait() }()
	s.t.Cleanup(cancel)
	return p
}

// ask returns which server answers over a new connection.
func (s *lbStage) ask() (string, error) {
	resp, err := s.client.Get("https://" + s.at + "/")
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	return string(body), err
}

func (s *lbStage) await(what string, p *lbProcess, ok func() bool) {
	s.t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(10 * time.Millisecond) { // a poll
		if time.Now().After(deadline) {
			s.t.Fatalf("never seen that %s:\n%s", what, p.said)
		}
	}
}

func (s *lbStage) ready() bool {
	resp, err := http.Get("http://" + s.metrics + "/readyz")
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	return resp.StatusCode == http.StatusOK
}

// TestAPIServerLBLives takes a balancer through its life: a file that changes, one that is not right, SIGHUP, a process that takes
// over while clients come, and its end.
func TestAPIServerLBLives(t *testing.T) {
	s := newLBStage(t)
	s.write(s.servers[0])
	first := s.start()
	s.await("it is ready", first, s.ready)
	if name, err := s.ask(); name != "one" || err != nil {
		t.Fatalf("%q, %v", name, err)
	}
	said, err := execute(t, "apiserver-lb", "status", "--metrics-address", s.metrics)
	if err != nil || !strings.Contains(said, s.servers[0].Listener.Addr().String()) || !strings.Contains(said, "Up") {
		t.Errorf("status: %v, %s", err, said)
	}

	s.write(s.servers[1])
	s.await("the file is taken over", first, func() bool { name, _ := s.ask(); return name == "two" })
	if err := os.WriteFile(s.file, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := first.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.await("the wrong file is told", first, func() bool { return strings.Contains(first.said.String(), "the one before stays in use") })
	if name, err := s.ask(); name != "two" || err != nil {
		t.Errorf("with a wrong file: %q, %v", name, err)
	}
	s.write(s.servers...)
	if err := first.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	s.await("SIGHUP has the file read", first, func() bool { name, _ := s.ask(); return name == "one" })

	second := s.succeed(first)
	second.stop()
	if err := <-second.ended; err != nil {
		t.Errorf("the end: %v\n%s", err, second.said)
	}
	if conn, err := net.Dial("tcp", s.at); err == nil {
		conn.Close()
		t.Error("something still listens")
	}
}

// askAllTheTime has a client ask until the function returned is called, over and over; none may fail.
func (s *lbStage) askAllTheTime() (stop func()) {
	s.t.Helper()
	var asked, failed atomic.Int64
	over, asking := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(asking)
		for {
			select {
			case <-over:
				return
			default:
			}
			asked.Add(1)
			if _, err := s.ask(); err != nil {
				failed.Add(1)
				s.t.Errorf("while one process takes over from the other: %v", err)
			}
		}
	}()
	return func() {
		close(over)
		<-asking
		if asked.Load() < 10 || failed.Load() > 0 {
			s.t.Errorf("%d of %d failed", failed.Load(), asked.Load())
		}
	}
}

// succeed starts a second process, which takes over from the first, while a client asks all the time.
func (s *lbStage) succeed(first *lbProcess) *lbProcess {
	s.t.Helper()
	stop := s.askAllTheTime()
	second := s.start()
	if err := <-first.ended; err != nil {
		s.t.Errorf("the process that was taken over from: %v\n%s", err, first.said)
	}
	s.await("the second one shows its pages", second, s.ready)
	stop()
	if said := second.said.String(); strings.Contains(said, "cannot serve HTTP") {
		s.t.Errorf("the address of the pages was not free in time:\n%s", said)
	}
	return second
}

// TestAPIServerLBTwoAtOnce has two processes start together, which both want to take over: one does, and then the other from
// that one. At the end there is one, and it has the pages.
func TestAPIServerLBTwoAtOnce(t *testing.T) {
	s := newLBStage(t)
	s.write(s.servers...)
	first := s.start()
	s.await("it is ready", first, s.ready)
	s.await("it can be taken over from", first, s.stands)
	stop := s.askAllTheTime()
	second, third := s.start(), s.start()
	last := third
	for _, p := range []*lbProcess{first, second} {
		select {
		case err := <-p.ended:
			if err != nil {
				t.Errorf("%v\n%s", err, p.said)
			}
			continue
		case err := <-third.ended:
			if p == first || err != nil {
				t.Errorf("one that was started later has ended before the first, or with %v:\n%s", err, third.said)
			}
			last = second
		case <-time.After(30 * time.Second):
			t.Fatalf("none has taken over:\n%s\n%s\n%s", first.said, second.said, third.said)
		}
	}
	s.await("the last one shows its pages", last, s.ready)
	stop()
	last.stop()
	if err := <-last.ended; err != nil {
		t.Errorf("%v\n%s", err, last.said)
	}
}
