//go:build !race

// The race detector has its own memory.

package outbound_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"runtime/debug"
	"strconv"
	"strings"
	"testing"

	"varco.dev/internal/apiserverproxy/outbound"
	"varco.dev/internal/httpproxy"
)

// proxyFor is the variable that makes the test binary a proxy for the target that it names, see TestBeTheProxy.
const proxyFor = "VARCO_TEST_PROXY_FOR"

// TestIdleMemory opens upgraded connections through a proxy, says something on each, and looks at what the proxy's
// process has grown by: both sides of each connection, TLS included. What the kernel has for its sockets comes on top.
func TestIdleMemory(t *testing.T) {
	const connections = 1000
	for name, tt := range map[string]struct {
		kind func(*httptest.Server) bool
		most int // bytes for each
	}{"http": {plain, 58 << 10}, "https": {withTLS, 72 << 10}} {
		t.Run(name, func(t *testing.T) {
			p := startProxy(t, newTarget(t, parrot, tt.kind).URL)
			p.open(10)
			before := p.memory()
			p.open(connections)
			after := p.memory()
			each := (after - before) / connections
			t.Logf("%d bytes for each of %d idle connections", each, connections)
			if each > tt.most {
				t.Errorf("%d bytes for each of %d idle connections, want %d at most", each, connections, tt.most)
			}
		})
	}
}

// proxyProcess is a proxy in a process of its own.
type proxyProcess struct {
	t    *testing.T
	addr string
	in   io.Writer
	out  *bufio.Reader
}

func startProxy(t *testing.T, target string) *proxyProcess {
	t.Helper()
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestBeTheProxy$")
	cmd.Env = append(os.Environ(), proxyFor+"="+target)
	cmd.Stderr = os.Stderr
	in, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { in.Close(); io.Copy(io.Discard, out); cmd.Wait() })
	p := &proxyProcess{t: t, in: in, out: bufio.NewReader(out)}
	p.addr = p.line()
	return p
}

func (p *proxyProcess) line() string {
	p.t.Helper()
	line, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatal(err)
	}
	return strings.TrimSpace(line)
}

// memory returns how many bytes of memory the proxy has, after a garbage collection.
func (p *proxyProcess) memory() int {
	p.t.Helper()
	fmt.Fprintln(p.in, "memory")
	n, err := strconv.Atoi(p.line())
	if err != nil {
		p.t.Fatal(err)
	}
	return n
}

// open opens connections that stay open until the test's end.
func (p *proxyProcess) open(n int) {
	p.t.Helper()
	for range n {
		conn, err := tls.Dial("tcp", p.addr, &tls.Config{InsecureSkipVerify: true})
		if err != nil {
			p.t.Fatal(err)
		}
		p.t.Cleanup(func() { conn.Close() })
		fmt.Fprintf(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: parrot\r\n\r\n")
		r := bufio.NewReader(conn)
		resp, err := http.ReadResponse(r, nil)
		if err != nil || resp.StatusCode != http.StatusSwitchingProtocols {
			p.t.Fatal(resp, err)
		}
		fmt.Fprintln(conn, strings.Repeat("hello ", 100))
		for range 3 { // the version, and twice what was said
			if _, err := r.ReadString('\n'); err != nil {
				p.t.Fatal(err)
			}
		}
	}
}

// TestBeTheProxy passes requests on to the target of proxyFor until its standard input ends. Without one it asks itself.
func TestBeTheProxy(t *testing.T) {
	target := os.Getenv(proxyFor)
	o := loose(t, outbound.Config{})
	proxy := httpproxy.New(httpproxy.Config{Log: slog.New(slog.DiscardHandler), MaxUpgrades: 10000})
	scheme, host, _ := strings.Cut(target, "://")
	profile := outbound.Profile{Scheme: scheme}
	front := newTarget(t, func(w http.ResponseWriter, r *http.Request) {
		proxy.Serve(w, r, httpproxy.Target{Scheme: scheme, Host: host, RoundTripper: o.RoundTripper(profile), Upgrade: o.Upgrade(profile)})
	}, withTLS)
	if target == "" {
		conn, err := net.Dial("tcp", front.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		return
	}
	fmt.Println(front.Listener.Addr())
	for in := bufio.NewScanner(os.Stdin); in.Scan(); {
		for range 4 { // each halves the stacks that were deep during the handshakes
			debug.FreeOSMemory()
		}
		fmt.Println(anonymous(t))
	}
}

// anonymous returns how many bytes of memory this process has that are not of files.
func anonymous(t *testing.T) int {
	t.Helper()
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(status), "RssAnon:")
	var kib int
	if _, err := fmt.Sscan(rest, &kib); err != nil {
		t.Fatal(err)
	}
	return kib << 10
}
