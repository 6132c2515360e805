package balance_test

import (
	"bufio"
	"context"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"varco.dev/internal/apiserverproxy/balance"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiserverproxy/outbound"
)

// within is how long a step of a test may take.
const within = 10 * time.Second

// writes is a connection that counts what is written to it, as those of package outbound are.
type writes struct {
	net.Conn
	n atomic.Int64
}

func (w *writes) Write(p []byte) (int, error) {
	n, err := w.Conn.Write(p)
	w.n.Add(int64(n))
	return n, err
}

// NetConn returns the connection below, as that of crypto/tls does.
func (w *writes) NetConn() net.Conn { return w.Conn }

// Written returns how many bytes were written.
func (w *writes) Written() int64 { return w.n.Load() }

// transports are RoundTrippers for all profiles.
type transports struct{ ordinary, upgrade http.RoundTripper }

func (t transports) RoundTripper(outbound.Profile) http.RoundTripper { return t.ordinary }
func (t transports) Upgrade(outbound.Profile) http.RoundTripper      { return t.upgrade }

// transport returns one as package outbound makes them.
func transport(t testing.TB) *http.Transport {
	tr := &http.Transport{
		DialContext: func(ctx context.Context, network, addr string) (net.Conn, error) {
			c, err := (&net.Dialer{}).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			return &writes{Conn: c}, nil
		},
		MaxIdleConnsPerHost: 64, DisableCompression: true, ExpectContinueTimeout: within,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return tr
}

// world is a balancer with a destination.
type world struct {
	balancer *balance.Balancer
	to       *locate.Destination
}

func newWorld(t testing.TB, endpoints ...netip.AddrPort) *world {
	tr := transport(t)
	return newWorldOf(balance.Config{Transports: transports{tr, tr}}, endpoints...)
}

func newWorldOf(c balance.Config, endpoints ...netip.AddrPort) *world {
	c.Log = slog.New(slog.DiscardHandler)
	return &world{balance.New(c), destination(endpoints...)}
}

func destination(endpoints ...netip.AddrPort) *locate.Destination {
	d := &locate.Destination{Namespace: "default", Name: "web", Port: "80", Key: "service/default/web:80/uid", Scheme: locate.HTTP}
	for _, e := range endpoints {
		d.Endpoints = append(d.Endpoints, locate.Endpoint{Addr: e})
	}
	return d
}

// ask sends a request and reads the answer.
func (w *world) ask(t testing.TB, method string, body io.Reader) (*http.Response, string, error) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), within)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, method, "http://ignored/x", body)
	if err != nil {
		t.Fatal(err)
	}
	return do(w.balancer.Exchange(r, netip.Addr{}, w.to).RoundTripper(), r)
}

func do(rt http.RoundTripper, r *http.Request) (*http.Response, string, error) {
	r.GetBody = nil // a server's request has none
	resp, err := rt.RoundTrip(r)
	if err != nil {
		return nil, "", err
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	return resp, string(b), err
}

// good is a target that works; it counts its requests.
func good(t testing.TB) (netip.AddrPort, *atomic.Int64) {
	var n atomic.Int64
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		n.Add(1)
		w.Write(b)
	}))
	t.Cleanup(s.Close)
	return addrOf(s.Listener), &n
}

func addrOf(l net.Listener) netip.AddrPort { return l.Addr().(*net.TCPAddr).AddrPort() }

// refusing is a target that takes no connections.
func refusing(t testing.TB) netip.AddrPort {
	l := listen(t)
	l.Close()
	return addrOf(l)
}

func listen(t testing.TB) net.Listener {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// odd is a target that deals with its connections itself. It counts the requests whose header has come.
func odd(t testing.TB, serve func(c *net.TCPConn, r *bufio.Reader, next func() *http.Request)) (netip.AddrPort, *atomic.Int64) {
	l := listen(t)
	var n atomic.Int64
	var wg sync.WaitGroup
	t.Cleanup(wg.Wait)
	t.Cleanup(func() { l.Close() })
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() {
				defer c.Close()
				c.SetDeadline(time.Now().Add(within))
				r := bufio.NewReader(c)
				serve(c.(*net.TCPConn), r, func() *http.Request {
					request, err := http.ReadRequest(r)
					if err != nil {
						return nil
					}
					n.Add(1)
					return request
				})
			})
		}
	})
	return addrOf(l), &n
}

// reset has the connection end with a RST.
func reset(c *net.TCPConn) {
	c.SetLinger(0)
	c.Close()
}

// blackhole is a target whose connections are never made: its backlog is full, so that SYNs are dropped.
func blackhole(t testing.TB) netip.AddrPort {
	fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM|syscall.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { syscall.Close(fd) })
	if err := syscall.Bind(fd, &syscall.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Listen(fd, 0); err != nil {
		t.Fatal(err)
	}
	name, err := syscall.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	addr := netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(name.(*syscall.SockaddrInet4).Port))
	for {
		c, err := net.DialTimeout("tcp", addr.String(), 200*time.Millisecond)
		if err != nil {
			return addr
		}
		t.Cleanup(func() { c.Close() })
	}
}

// waitFor waits until something is so.
func waitFor(t testing.TB, is func() (got any, ok bool)) {
	t.Helper()
	for end := time.Now().Add(within); ; time.Sleep(time.Millisecond) { // polls what has no event
		got, ok := is()
		if ok {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("it did not come to be; last %v", got)
		}
	}
}
