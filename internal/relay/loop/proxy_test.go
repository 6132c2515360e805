//go:build linux

package loop_test

import (
	"bufio"
	"io"
	"net"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/pires/go-proxyproto"

	"varco.dev/internal/relay/loop"
)

// mine is where the tests connect from.
var mine = netip.MustParsePrefix("127.0.0.0/8")

// header makes a PROXY header with another implementation than the relay's own.
func header(t *testing.T, version byte, command proxyproto.ProtocolVersionAndCommand, from, to string) string {
	t.Helper()
	source, destination := netip.MustParseAddrPort(from), netip.MustParseAddrPort(to)
	h := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(source), net.TCPAddrFromAddrPort(destination))
	h.Command = command
	b, err := h.Format()
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

// TestProxyHeaderIn wants the address that a header names to be told to Pick, and the bytes behind it to be relayed.
func TestProxyHeaderIn(t *testing.T) {
	const to = "198.51.100.1:443"
	v1 := header(t, 1, proxyproto.PROXY, "192.0.2.7:1234", to)
	v2 := header(t, 2, proxyproto.PROXY, "192.0.2.7:1234", to)
	six := header(t, 2, proxyproto.PROXY, "[2001:db8::7]:1234", "[2001:db8::1]:443")
	six1 := header(t, 1, proxyproto.PROXY, "[2001:db8::7]:1234", "[2001:db8::1]:443")
	for _, c := range []struct {
		name, header string
		step         int    // bytes that come at a time; 0: all at once, with what follows
		want         string // "": the connection's own
	}{
		{"v1", v1, 0, "192.0.2.7:1234"},
		{"v1 byte by byte", v1, 1, "192.0.2.7:1234"},
		{"v2", v2, 0, "192.0.2.7:1234"},
		{"v2 byte by byte", v2, 1, "192.0.2.7:1234"},
		{"v2 in two parts", v2, len(v2) - 1, "192.0.2.7:1234"},
		{"v2 before the rest", v2, len(v2), "192.0.2.7:1234"},
		{"v1 of IPv6", six1, 5, "[2001:db8::7]:1234"},
		{"v2 of IPv6", six, 13, "[2001:db8::7]:1234"},
		{"v2 LOCAL", header(t, 2, proxyproto.LOCAL, "192.0.2.7:1234", to), 0, ""},
		{"v1 UNKNOWN", "PROXY UNKNOWN\r\n", 0, ""},
	} {
		for _, first := range []string{"hello", helloOf(5000)} {
			t.Run(c.name, func(t *testing.T) {
				r := start(t, options{listener: loop.Listener{ProxyFrom: []netip.Prefix{mine}}}, serve(t, echoes))
				client := r.dial(t)
				all := c.header + first
				for step := c.step; step > 0 && len(all) > len(first); {
					n := min(step, len(all)-len(first))
					io.WriteString(client, all[:n])
					all = all[n:]
					time.Sleep(100 * time.Microsecond) // so that the kernel does not join the parts
				}
				io.WriteString(client, all)
				client.CloseWrite()
				if got, err := io.ReadAll(client); string(got) != first || err != nil {
					t.Errorf("got %d bytes and %v, want the %d behind the header", len(got), err, len(first))
				}
				wantClient(t, r, client, c.want)
			})
		}
	}
}

func wantClient(t *testing.T, r *running, client net.Conn, want string) {
	t.Helper()
	peer := addrOf(client.LocalAddr())
	addr := peer
	if want != "" {
		addr = netip.MustParseAddrPort(want)
	}
	if got := r.client(t); got.Addr != addr || got.Peer != peer {
		t.Errorf("got %+v, want the client %v behind %v", got, addr, peer)
	}
}

// TestProxyHeaderOfServerFirst has clients that send a header and then wait for the server to speak, which may happen
// before the relay knows that it is connected.
func TestProxyHeaderOfServerFirst(t *testing.T) {
	for range 100 {
		r := start(t, options{listener: loop.Listener{ProxyFrom: []netip.Prefix{mine}}}, serve(t, says("hello")))
		client := r.dial(t)
		io.WriteString(client, header(t, 2, proxyproto.PROXY, "192.0.2.7:1234", "198.51.100.1:443"))
		if got, err := io.ReadAll(client); string(got) != "hello" || err != nil {
			t.Fatalf("got %q and %v", got, err)
		}
		wantClient(t, r, client, "192.0.2.7:1234")
		r.cancel()
		r.wait(t)
	}
}

// TestProxyHeaderWanted has clients of whom a header is wanted, and who send none.
func TestProxyHeaderWanted(t *testing.T) {
	v2 := header(t, 2, proxyproto.PROXY, "192.0.2.7:1234", "198.51.100.1:443")
	for name, text := range map[string]string{
		"TLS": "\x16\x03\x01hello", "HTTP": "GET / HTTP/1.1\r\n\r\n", "almost v1": "PROXY TCP9 1 2 3 4\r\n",
		"v1 without an end": "PROXY TCP4 " + strings.Repeat("1", 200), "almost v2": v2[:12] + "\x31" + v2[13:],
		"v2 that is too long": v2[:14] + "\xff\xff" + strings.Repeat("x", 1<<16),
	} {
		t.Run(name, func(t *testing.T) {
			other, _ := silent(t)
			r := start(t, options{listener: loop.Listener{ProxyFrom: []netip.Prefix{mine}}}, other)
			client := r.dial(t)
			io.WriteString(client, text)
			wantReset(t, readError(client))
			eventually(t, "it is counted", func() bool { return r.Stats().Ended[loop.BadHeader] == 1 })
			r.wants(t)
		})
	}
	t.Run("the end", func(t *testing.T) {
		r := start(t, options{listener: loop.Listener{ProxyFrom: []netip.Prefix{mine}}}, absent(t))
		client := r.dial(t)
		io.WriteString(client, v2[:10])
		client.CloseWrite()
		readError(client)
		eventually(t, "the session is gone", func() bool { return r.Stats().Open == 0 })
		r.wants(t)
	})
}

// TestProxyHeaderOfOthers wants what looks like a header to be relayed if none is wanted: anybody could say anything.
func TestProxyHeaderOfOthers(t *testing.T) {
	r := start(t, options{listener: loop.Listener{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("192.0.2.0/24")}}}, serve(t, echoes))
	client := r.dial(t)
	exchange(t, client, header(t, 1, proxyproto.PROXY, "192.0.2.7:1234", "198.51.100.1:443"))
	wantClient(t, r, client, "")
}

// TestProxyHeaderOut wants backends to hear of the client, be it the connection's own or that of a header that came in, and
// to get what the client said behind it.
func TestProxyHeaderOut(t *testing.T) {
	for family, address := range families {
		for name, c := range map[string]struct {
			in   string
			from []netip.Prefix
		}{
			"own": {}, "another's": {"PROXY TCP4 192.0.2.7 198.51.100.1 1234 443\r\n", []netip.Prefix{mine, netip.MustParsePrefix("::1/128")}},
		} {
			t.Run(family+" "+name, func(t *testing.T) {
				headers := make(chan *proxyproto.Header, 1)
				backend := serveAt(t, address, func(c *net.TCPConn) {
					b := bufio.NewReader(c)
					h, err := proxyproto.Read(b)
					if err != nil {
						t.Error(err)
					}
					headers <- h
					io.Copy(c, b)
				})
				r := start(t, options{listen: address, listener: loop.Listener{ProxyFrom: c.from, ProxyTo: true}}, backend)
				client := r.dial(t)
				io.WriteString(client, c.in)
				exchange(t, client, "hello")
				from, to := addrOf(client.LocalAddr()), r.at
				if c.in != "" {
					from, to = netip.MustParseAddrPort("192.0.2.7:1234"), netip.MustParseAddrPort("198.51.100.1:443")
				}
				h := <-headers
				if h == nil || h.Version != 2 || addrOf(h.SourceAddr) != from || addrOf(h.DestinationAddr) != to {
					t.Errorf("got %+v, want v2 with %v to %v", h, from, to)
				}
			})
		}
	}
}

// TestProxyHeaderIsRepeated wants every backend that is tried to get a header.
func TestProxyHeaderIsRepeated(t *testing.T) {
	a := newAuthority(t)
	quiet, flights := silent(t)
	config := a.client(t, 0)
	inner := a.serveTLS(t)
	outer := serve(t, func(c *net.TCPConn) {
		b := bufio.NewReader(c)
		if h, err := proxyproto.Read(b); err != nil || h.Version != 2 {
			t.Errorf("got %+v and %v", h, err)
		}
		to := dial(t, inner)
		go func() { io.Copy(to, b); to.CloseWrite() }()
		io.Copy(c, to)
	})
	r := start(t, options{timing: quick, listener: loop.Listener{ProxyTo: true}}, quiet, outer)
	if got, err := askTLS(r.dial(t), config); got != "you are alice" || err != nil {
		t.Errorf("got %q and %v", got, err)
	}
	if got := <-flights; !strings.HasPrefix(got, "\r\n\r\n\x00\r\nQUIT\n") {
		t.Errorf("the silent one got %.30q, want a header", got)
	}
}
