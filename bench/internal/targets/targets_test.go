package targets_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"varco.dev/bench/internal/load"
	"varco.dev/bench/internal/targets"
)

// two addresses of targets.
var two = []netip.Addr{netip.MustParseAddr("127.78.0.1"), netip.MustParseAddr("127.78.0.2")}

// start serves until the test ends.
func start(t *testing.T) (small, page uint16) {
	t.Helper()
	s := &targets.Server{Addresses: two, SmallPort: freePort(t), PagePort: freePort(t),
		Ready: filepath.Join(t.TempDir(), "ready"), Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(10 * time.Second); ; {
		if ready, _ := filepath.Glob(s.Ready); len(ready) > 0 {
			return s.SmallPort, s.PagePort
		}
		if time.Now().After(deadline) {
			t.Fatal("the targets do not listen")
		}
		time.Sleep(time.Millisecond) // the file is all that tells
	}
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

func url(i int, port uint16, path string) string {
	return "http://" + netip.AddrPortFrom(two[i], port).String() + path
}

func TestSmallAnswersAreCounted(t *testing.T) {
	small, page := start(t)
	for range 3 {
		res, err := http.Get(url(1, small, "/x"))
		if err != nil {
			t.Fatal(err)
		}
		b, err := io.ReadAll(res.Body)
		if res.StatusCode != http.StatusOK || !json.Valid(b) || err != nil {
			t.Errorf("got %s, %q, %v", res.Status, b, err)
		}
		res.Body.Close()
	}
	res, err := http.Get(url(0, page, targets.CountsPath))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	var got targets.Counts
	if err := json.NewDecoder(res.Body).Decode(&got); err != nil || got[two[0]] != 0 || got[two[1]] != 3 {
		t.Errorf("got %v, %v, want three requests to the second", got, err)
	}
}

func TestPages(t *testing.T) {
	_, page := start(t)
	const gap = 50 * time.Millisecond
	for _, c := range []struct {
		path     string
		html     bool
		bytes    int64
		at, last time.Duration
	}{
		{targets.PagePath(2), true, 2 << 20, 0, 0},
		{targets.StreamPath(3, gap), true, 100, 0, 2 * gap},
		{targets.FlowPath(1e6, 100*time.Millisecond), false, 1e5, 0, 90 * time.Millisecond},
	} {
		res, err := http.Get(url(0, page, c.path))
		if err != nil {
			t.Fatal(err)
		}
		res.Body.Close()
		if html := strings.HasPrefix(res.Header.Get("Content-Type"), "text/html"); html != c.html {
			t.Errorf("%s is HTML: %t", c.path, html)
		}
		got, err := load.Fetch(t.Context(), http.DefaultClient, url(0, page, c.path))
		if err != nil || got.Bytes < c.bytes || got.Whole < c.last || c.last > 0 && got.First > c.last/2 {
			t.Errorf("%s: got %+v, %v", c.path, got, err)
		}
		if !c.html && got.Bytes != c.bytes {
			t.Errorf("%s: got %d bytes", c.path, got.Bytes)
		}
	}
}

func TestSocketsEcho(t *testing.T) {
	_, page := start(t)
	dial := func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "tcp", netip.AddrPortFrom(two[1], page).String())
	}
	s, err := load.OpenSockets(t.Context(), dial, targets.SocketPath, 3)
	if err != nil {
		t.Fatal(err)
	}
	for range 2 {
		if err := s.Echo(); err != nil {
			t.Error(err)
		}
	}
	if err := s.Close(); err != nil {
		t.Error(err)
	}
	if _, err := load.OpenSockets(t.Context(), dial, targets.PagePath(1), 3); err == nil || !strings.Contains(err.Error(), fmt.Sprint(http.StatusOK)) {
		t.Errorf("got %v where a page is, want its status", err)
	}
}
