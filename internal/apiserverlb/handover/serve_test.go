//go:build linux

package handover_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/apiserverlb/handover"
)

// server is a process that serves, within this one.
type server struct {
	t     *testing.T
	path  string
	taken chan int // PIDs
	log   *logged
	end   context.CancelFunc
	ended chan error
}

// logged passes on what is logged, line by line.
type logged struct {
	lines chan string
}

func (l *logged) Write(b []byte) (int, error) {
	l.lines <- string(b)
	return len(b), nil
}

// serve starts a server and waits for its socket.
func serve(t *testing.T, path string, list ...handover.Listener) *server {
	t.Helper()
	return serveFor(t, 0, path, list...)
}

// serveFor starts a server that waits so long for a successor.
func serveFor(t *testing.T, wait time.Duration, path string, list ...handover.Listener) *server {
	t.Helper()
	ctx, stop := context.WithCancel(t.Context())
	s := &server{t: t, path: path, taken: make(chan int, 9), log: &logged{make(chan string, 99)}, end: stop, ended: make(chan error, 1)}
	standing := make(chan struct{})
	go func() {
		s.ended <- handover.Serve(ctx, handover.Config{
			Path: path, Log: slog.New(slog.NewTextHandler(s.log, nil)), Standing: func() { close(standing) },
			Listeners: func() []handover.Listener { return list }, Taken: func(pid int) { s.taken <- pid },
			Wait: wait,
		})
	}()
	select {
	case <-standing:
	case err := <-s.ended:
		t.Fatal(err)
	}
	t.Cleanup(stop)
	return s
}

// logs waits for a line that has the text.
func (s *server) logs(text string) {
	s.t.Helper()
	select {
	case line := <-s.log.lines:
		if !strings.Contains(line, text) {
			s.t.Errorf("got the line %s, want %q", line, text)
		}
	case <-time.After(10 * time.Second):
		s.t.Errorf("no line with %q", text)
	}
}

// stop ends the server and checks how it ended.
func (s *server) stop() {
	s.t.Helper()
	s.end()
	if err := <-s.ended; err != nil {
		s.t.Error(err)
	}
}

// refusesToServe says that Serve ends at once with an error that has the text.
func refusesToServe(t *testing.T, path, text string) {
	t.Helper()
	err := handover.Serve(t.Context(), handover.Config{
		Path: path, Log: slog.New(slog.DiscardHandler), Listeners: func() []handover.Listener { return nil }, Taken: func(int) {},
	})
	if err == nil || !strings.Contains(err.Error(), text) {
		t.Errorf("got %v, want %q", err, text)
	}
}

func listen(t *testing.T, address string) *net.TCPListener {
	t.Helper()
	l, err := handover.Open(t.Context(), netip.MustParseAddrPort(address))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	return l
}

func take(t *testing.T, path string) *handover.Taken {
	t.Helper()
	got, err := handover.Take(t.Context(), path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		for _, l := range got.Listeners {
			_ = l.Net.Close()
		}
	})
	return got
}

func addrPort(l *net.TCPListener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// TestAllListenersPass with their names, and work at the other end, when the owner has closed its own.
func TestAllListenersPass(t *testing.T) {
	var list []handover.Listener
	for i := range handover.MaxListeners {
		address := []string{"127.0.0.1:0", "[::1]:0", "[::]:0", "0.0.0.0:0"}[i%4]
		list = append(list, handover.Listener{Name: strings.Repeat("n", 250) + fmt.Sprint(i), Net: listen(t, address)})
	}
	s := serve(t, socketPath(t), list...)
	if info, err := os.Lstat(s.path); err != nil || info.Mode() != os.ModeSocket|0o600 {
		t.Errorf("got the socket %v, %v", info.Mode(), err)
	}
	got := take(t, s.path)
	if got.PID != os.Getpid() || len(got.Listeners) != len(list) {
		t.Fatalf("got PID %d and %d listeners", got.PID, len(got.Listeners))
	}
	if err := got.Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	if pid := <-s.taken; pid != os.Getpid() {
		t.Errorf("got PID %d", pid)
	}
	rest := got.Listeners
	for _, l := range list {
		var mine *net.TCPListener
		if mine, rest = handover.Claim(rest, l.Name, addrPort(l.Net), false); mine == nil {
			t.Fatalf("listener %s at %v did not come", l.Name, l.Net.Addr())
		}
		_ = l.Net.Close()
		check(t, mine)
	}
	if len(rest) != 0 {
		t.Errorf("got %d listeners more", len(rest))
	}
}

// check connects to a listener.
func check(t *testing.T, l *net.TCPListener) {
	t.Helper()
	go func() {
		if c, err := l.Accept(); err == nil {
			_, _ = c.Write([]byte("here"))
			_ = c.Close()
		}
	}()
	if got, err := ask(l.Addr().String()); err != nil || got != "here" {
		t.Errorf("%v: got %q, %v", l.Addr(), got, err)
	}
}

func TestTooManyListeners(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	s := serve(t, socketPath(t), slices.Repeat([]handover.Listener{{Name: "a", Net: l}}, handover.MaxListeners+1)...)
	if _, err := handover.Take(t.Context(), s.path); err == nil || !strings.Contains(err.Error(), "129 listeners are more than 128") {
		t.Errorf("got %v", err)
	}
	s.logs("are more than")
}

// TestListenerWasClosed: the error names it, and the server goes on.
func TestListenerWasClosed(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	s := serve(t, socketPath(t), handover.Listener{Name: "gone", Net: l})
	_ = l.Close()
	if _, err := handover.Take(t.Context(), s.path); err == nil || !strings.Contains(err.Error(), "listener gone") {
		t.Errorf("got %v", err)
	}
	s.logs("listener gone")
	s.stop()
}

func TestNobody(t *testing.T) {
	path := socketPath(t)
	if _, err := handover.Take(t.Context(), path); !errors.Is(err, handover.ErrNobody) {
		t.Errorf("no socket: got %v", err)
	}
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	l.SetUnlinkOnClose(false)
	_ = l.Close()
	if _, err := handover.Take(t.Context(), path); !errors.Is(err, handover.ErrNobody) {
		t.Errorf("a socket with nobody behind it: got %v", err)
	}
	s := serve(t, path, handover.Listener{Name: "a", Net: listen(t, "127.0.0.1:0")})
	if err := take(t, path).Close(); err != nil {
		t.Error(err)
	}
	s.logs("did not take over")
	s.stop()
	if _, err := handover.Take(t.Context(), path); !errors.Is(err, handover.ErrNobody) {
		t.Errorf("after its end: got %v", err)
	}
}

func TestPaths(t *testing.T) {
	dir := filepath.Dir(socketPath(t))
	file := filepath.Join(dir, "file")
	if err := os.WriteFile(file, []byte("mine"), 0o600); err != nil {
		t.Fatal(err)
	}
	open := filepath.Join(dir, "open")
	if err := errors.Join(os.Mkdir(open, 0o700), os.Chmod(open, 0o777|os.ModeSticky)); err != nil {
		t.Fatal(err)
	}
	long := "/" + strings.Repeat("x", 99)
	refusesToServe(t, long, "has 100 bytes, and 99 fit")
	refusesToServe(t, filepath.Join(dir, "no", "s"), "no, does not exist")
	refusesToServe(t, filepath.Join(file, "s"), "not a")
	refusesToServe(t, filepath.Join(open, "s"), "chmod go-w "+open)
	refusesToServe(t, file, "is there, and is not a socket")
	if got, err := os.ReadFile(file); err != nil || string(got) != "mine" {
		t.Errorf("got %q, %v", got, err)
	}
	if _, err := handover.Take(t.Context(), long); err == nil || errors.Is(err, handover.ErrNobody) {
		t.Errorf("got %v", err)
	}
	if left, _ := filepath.Glob(filepath.Join(dir, "*.*")); left != nil {
		t.Errorf("left %v", left)
	}
}

// TestLate is about a successor that takes too long: it is told so, and the server goes on.
func TestLate(t *testing.T) {
	s := serveFor(t, time.Second, socketPath(t), handover.Listener{Name: "a", Net: listen(t, "127.0.0.1:0")})
	late := take(t, s.path)
	s.logs("i/o timeout")
	if err := late.Done(t.Context()); err == nil || !strings.Contains(err.Error(), "refuses: wait for done") {
		t.Errorf("got %v", err)
	}
	if err := take(t, s.path).Done(t.Context()); err != nil || len(s.taken) != 1 {
		t.Errorf("got %v, and %d take-overs", err, len(s.taken))
	}
}

// TestPredecessorEnds before Done: there is nobody who could go on.
func TestPredecessorEnds(t *testing.T) {
	s := serve(t, socketPath(t), handover.Listener{Name: "a", Net: listen(t, "127.0.0.1:0")})
	got := take(t, s.path)
	s.stop()
	if err := got.Done(t.Context()); err != nil || len(s.taken) != 0 {
		t.Errorf("got %v, and %d take-overs", err, len(s.taken))
	}
	check(t, got.Listeners[0].Net)
}

// TestSentOn: who comes between the take-over and the successor's socket gets the successor.
func TestSentOn(t *testing.T) {
	l := listen(t, "127.0.0.1:0")
	first := serve(t, socketPath(t), handover.Listener{Name: "first", Net: l})
	if err := take(t, first.path).Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	third := make(chan string, 1)
	go func() {
		got, err := handover.Take(t.Context(), first.path)
		if err != nil {
			third <- err.Error()
			return
		}
		third <- got.Listeners[0].Name
		_ = got.Close()
	}()
	select {
	case name := <-third:
		t.Fatalf("got %s of a process that has handed over", name)
	case <-time.After(200 * time.Millisecond):
	}
	second := serve(t, first.path, handover.Listener{Name: "second", Net: l})
	if name := <-third; name != "second" {
		t.Errorf("got %s", name)
	}
	first.stop()
	if err := take(t, second.path).Close(); err != nil { // the first left the second's socket alone
		t.Error(err)
	}
}

// TestServeEnds some time after it was taken over, by itself.
func TestServeEnds(t *testing.T) {
	t.Parallel()
	s := serve(t, socketPath(t))
	if err := take(t, s.path).Done(t.Context()); err != nil {
		t.Fatal(err)
	}
	select {
	case err := <-s.ended:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(2 * handover.Linger):
		t.Error("it goes on")
	}
}

// TestOneAtATime: two come at once, and one takes over.
func TestOneAtATime(t *testing.T) {
	s := serve(t, socketPath(t), handover.Listener{Name: "a", Net: listen(t, "127.0.0.1:0")})
	one := take(t, s.path)
	ctx, stop := context.WithTimeout(t.Context(), 100*time.Millisecond)
	defer stop()
	if _, err := handover.Take(ctx, s.path); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("got %v", err)
	}
	if err := one.Done(t.Context()); err != nil {
		t.Error(err)
	}
}

// speak connects to a path and speaks by itself.
func speak(t *testing.T, path string, kind string, version int) map[string]any {
	t.Helper()
	c, err := net.Dial("unixpacket", path)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := fmt.Fprintf(c, `{"version":%d,"kind":%q}`, version, kind); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 4096)
	n, err := c.Read(b)
	if err != nil {
		t.Fatal(err)
	}
	var got map[string]any
	if err := json.Unmarshal(b[:n], &got); err != nil {
		t.Fatal(err)
	}
	return got
}

func TestVersions(t *testing.T) {
	s := serve(t, socketPath(t), handover.Listener{Name: "a", Net: listen(t, "127.0.0.1:0")})
	for _, c := range []struct {
		kind    string
		version int
		want    string
	}{
		{"take", 9, "the other process speaks version 9 of the protocol, and this one version 1: one must end before the other starts"},
		{"done", 1, `got message "done" where take is due`},
	} {
		got := speak(t, s.path, c.kind, c.version)
		if got["kind"] != "refused" || got["reason"] != c.want {
			t.Errorf("got %v", got)
		}
		s.logs("did not take over")
	}
	if err := take(t, s.path).Close(); err != nil {
		t.Error(err)
	}
}

// answer is a process at the path that answers whoever connects.
func answer(t *testing.T, path string, texts ...string) {
	t.Helper()
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: path})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		c, err := l.Accept()
		if err != nil {
			return
		}
		_, _ = c.Read(make([]byte, 4096))
		for _, text := range texts {
			_, _ = c.Write([]byte(text))
		}
		_, _ = c.Read(make([]byte, 1))
		_ = c.Close()
	}()
}

func TestOtherAnswers(t *testing.T) {
	for want, texts := range map[string][]string{
		"the other process speaks version 2 of the protocol, and this one version 1": {`{"version":2,"kind":"refused"}`},
		"refuses: not today":              {`{"version":1,"kind":"refused","reason":"not today"}`},
		"came without its descriptor":     {`{"version":1,"kind":"offer","count":1}`, `{"version":1,"kind":"listener","name":"a"}`},
		"read a message":                  {`hello`},
		`got message "done" where offer`:  {`{"version":1,"kind":"done"}`},
		"deadline exceeded":               {},
		"listener b came without its des": {`{"version":1,"kind":"offer","count":9999999}`, `{"version":1,"kind":"listener","name":"b"}`},
	} {
		path := socketPath(t)
		answer(t, path, texts...)
		patience := 10 * time.Second
		if len(texts) == 0 {
			patience = 100 * time.Millisecond
		}
		ctx, stop := context.WithTimeout(t.Context(), patience)
		_, err := handover.Take(ctx, path)
		stop()
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, handover.ErrNobody) {
			t.Errorf("got %v, want %q", err, want)
		}
	}
}
