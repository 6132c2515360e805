package kubectlproxy_test

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"varco.dev/internal/kubectlproxy"
)

// TestStopWithClientsThatReadNothing wants the end of the proxy whatever its clients do.
func TestStopWithClientsThatReadNothing(t *testing.T) {
	for _, protocol := range []string{"HTTP/1.1", "HTTP/2"} {
		t.Run(protocol, func(t *testing.T) {
			s := prepare(t, func(s *stage) { s.config.DrainTimeout = 100 * time.Millisecond })
			s.startOurs()
			s.api.answers(func(w http.ResponseWriter, _ *http.Request) {
				for block := make([]byte, 1<<20); ; {
					if _, err := w.Write(block); err != nil {
						return
					}
				}
			})
			if protocol == "HTTP/1.1" {
				s.ours.open(t, get("/")).header(t)
			} else {
				readsNoFrames(t, s.ours)
			}
			time.Sleep(300 * time.Millisecond) // until all that is in between is full; a slow machine only makes the test easier
			ended := make(chan error, 1)
			go func() { ended <- s.stop() }()
			select {
			case err := <-ended:
				if err != nil {
					t.Error(err)
				}
			case <-time.After(patience):
				t.Fatal("the proxy does not end")
			}
		})
	}
}

// readsNoFrames asks for / with all the windows open, and reads no more.
func readsNoFrames(t *testing.T, v server) {
	t.Helper()
	conn, err := net.Dial(v.network, v.address)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	const all = 1<<31 - 1
	f.WriteSettings(http2.Setting{ID: http2.SettingInitialWindowSize, Val: all})
	f.WriteWindowUpdate(0, all-1<<16)
	// :method GET, :scheme http, :path / of HPACK's table, and :authority localhost.
	header := append([]byte{0x82, 0x86, 0x84, 0x01, 9}, "localhost"...)
	if err := f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, BlockFragment: header, EndStream: true, EndHeaders: true}); err != nil {
		t.Fatal(err)
	}
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			t.Fatal(err)
		}
		if frame.Header().Type == http2.FrameHeaders {
			return
		}
	}
}

// TestUnwantedBodies sends parts of bodies to those who do not want them.
func TestUnwantedBodies(t *testing.T) {
	s := prepare(t, withFiles, withAPIPrefix("/k8s/"))
	s.startOurs()
	codes := map[string]int{"/k8s/api/v1/namespaces/d/pods/p/exec": 403, "/nowhere": 404, "/static/note.txt": 200, "/": 405, "/k8s": 307}
	open := map[string]*wire{}
	for target := range codes {
		open[target] = s.ours.open(t, request("POST", target, "", "Content-Length: 100")+"part")
	}
	for target, want := range codes {
		if got := open[target].answer(t); got.Code != want {
			t.Errorf("%s: %v, want %d", target, got, want)
		}
	}
}

// TestNothingIsSaidToOtherHosts asks, under a name that is not ours, for what is not there.
func TestNothingIsSaidToOtherHosts(t *testing.T) {
	s := prepare(t, withAPIPrefix("/guess-this/"))
	s.startOurs()
	for _, target := range []string{"/nowhere", "/guess-this"} {
		if got := s.ours.send(t, get(target, "Host: rebound.example")); got.String() != oursNo || strings.Contains(got.Body, "guess-this/") {
			t.Errorf("%s: %v with %s", target, got, got.Body)
		}
	}
}

// TestSlashesStayEscaped has them beside bytes that must be escaped and are not.
func TestSlashesStayEscaped(t *testing.T) {
	for _, prefix := range []string{"", "/custom"} {
		s := prepare(t, withAPIPrefix(prefix))
		s.startOurs()
		if got, want := s.ours.send(t, get(prefix+"/api/a%2Fb|c")).String(), "200 GET /api/a%2Fb%7Cc"; got != want {
			t.Errorf("under %q: %q, want %q", prefix, got, want)
		}
	}
}

// TestSocketOfAnother has a second proxy take the place of a first, which then ends.
func TestSocketOfAnother(t *testing.T) {
	path := filepath.Join(t.TempDir(), "socket")
	first, second := prepare(t), prepare(t)
	for _, s := range []*stage{first, second} {
		s.config.UnixSocket = path
		s.startOurs()
	}
	if err := first.stop(); err != nil {
		t.Fatal(err)
	}
	if got := second.ours.send(t, get("/version")).String(); got != "200 GET /version" {
		t.Error(got)
	}
	if err := second.stop(); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); !os.IsNotExist(err) {
		t.Errorf("the socket is left behind: %v", err)
	}
}

// TestTokenIsSeen wants no token that nobody gets to know.
func TestTokenIsSeen(t *testing.T) {
	s := prepare(t)
	s.config.RequireToken, s.config.UnixSocket = true, filepath.Join(t.TempDir(), "socket")
	if _, err := kubectlproxy.New(s.config); err == nil || !strings.Contains(err.Error(), "--require-token") {
		t.Errorf("error %v", err)
	}
}

// TestCutUpgradeIsReset has the API server cut an upgraded connection: its client must not take that for an end.
func TestCutUpgradeIsReset(t *testing.T) {
	s := prepare(t, func(s *stage) { s.config.MaxConnections = 1 })
	s.startOurs()
	s.api.answers(func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(w).Hijack()
		if err != nil {
			panic(err)
		}
		io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\npart")
		below := conn.(interface{ NetConn() net.Conn }).NetConn().(*net.TCPConn)
		below.SetLinger(0)
		below.Close()
	})
	for range 2 { // the first has given its place back
		w := s.ours.open(t, upgrade(watchPods, "websocket"))
		if got := w.header(t).StatusCode; got != 101 {
			t.Fatal(got)
		}
		if _, err := io.ReadAll(w.in); !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("the end is %v, want a reset", err)
		}
		w.Close()
	}
}
