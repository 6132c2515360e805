package discovery_test

import (
	"context"
	"log/slog"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"golang.org/x/net/dns/dnsmessage"

	"varco.dev/internal/backend/discovery"
)

// dnsReply is what a DNS server says of a name for one type of addresses.
type dnsReply struct {
	code   dnsmessage.RCode
	addrs  []string
	silent bool
}

// dnsServer is a DNS server that knows api.test. It stops at the end of the test.
type dnsServer struct {
	conn net.PacketConn

	mu      sync.Mutex
	replies map[dnsmessage.Type]dnsReply
	asked   map[dnsmessage.Type]int // since the replies were set
}

func newDNSServer(t *testing.T) *dnsServer {
	conn, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := &dnsServer{conn: conn}
	t.Cleanup(func() { conn.Close() })
	go s.serve(t)
	return s
}

func (s *dnsServer) set(a, aaaa dnsReply) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.replies = map[dnsmessage.Type]dnsReply{dnsmessage.TypeA: a, dnsmessage.TypeAAAA: aaaa}
	s.asked = map[dnsmessage.Type]int{}
}

// heard returns how often both types were asked for since the replies were set.
func (s *dnsServer) heard() int {
	s.mu.Lock()
	defer s.mu.Unlock()
	return min(s.asked[dnsmessage.TypeA], s.asked[dnsmessage.TypeAAAA])
}

func (s *dnsServer) serve(t *testing.T) {
	buf := make([]byte, 1500)
	for {
		n, from, err := s.conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer, ok := s.answer(t, buf[:n]); ok {
			s.conn.WriteTo(answer, from)
		}
	}
}

func (s *dnsServer) answer(t *testing.T, query []byte) ([]byte, bool) {
	var m dnsmessage.Message
	if err := m.Unpack(query); err != nil || len(m.Questions) != 1 {
		t.Errorf("query %v: %v", m, err)
		return nil, false
	}
	q := m.Questions[0]
	s.mu.Lock()
	r := s.replies[q.Type]
	s.asked[q.Type]++
	s.mu.Unlock()
	if q.Name.String() != "api.test." { // with a search domain
		r = dnsReply{code: dnsmessage.RCodeNameError}
	}
	m.Header = dnsmessage.Header{ID: m.ID, Response: true, RecursionAvailable: true, RCode: r.code}
	m.Additionals = nil
	for _, a := range r.addrs {
		m.Answers = append(m.Answers, dnsmessage.Resource{
			Header: dnsmessage.ResourceHeader{Name: q.Name, Class: q.Class, TTL: 1}, Body: body(netip.MustParseAddr(a)),
		})
	}
	out, err := m.Pack()
	if err != nil {
		t.Error(err)
	}
	return out, !r.silent
}

func body(a netip.Addr) dnsmessage.ResourceBody {
	if a.Is4() {
		return &dnsmessage.AResource{A: a.As4()}
	}
	return &dnsmessage.AAAAResource{AAAA: a.As16()}
}

// TestRealResolver has net.Resolver ask a DNS server: what its errors mean is not said in its types.
func TestRealResolver(t *testing.T) {
	four, six := dnsReply{addrs: []string{"10.0.0.1"}}, dnsReply{addrs: []string{"fd00::1"}}
	noName, fails, refused := dnsReply{code: dnsmessage.RCodeNameError}, dnsReply{code: dnsmessage.RCodeServerFailure}, dnsReply{code: dnsmessage.RCodeRefused}
	const both, only4, only6 = "10.0.0.1:6443 dns api.test, [fd00::1]:6443 dns api.test", "10.0.0.1:6443 dns api.test", "[fd00::1]:6443 dns api.test"
	for _, c := range []struct {
		name    string
		a, aaaa dnsReply
		want    string
	}{
		{"the same", four, six, both},
		{"no IPv6 any more", four, dnsReply{}, only4},
		{"no IPv4 any more", dnsReply{}, six, only6},
		{"IPv6 fails", four, fails, both},
		{"IPv4 fails", fails, six, both},
		{"IPv6 is refused", four, refused, both},
		{"no such name", noName, noName, both},
		{"no addresses", dnsReply{}, dnsReply{}, both},
		{"both fail", fails, fails, both},
		{"an address of IPv4 in six, which net takes for none", dnsReply{}, dnsReply{addrs: []string{"::ffff:10.0.0.1"}}, both},
	} {
		t.Run(c.name, func(t *testing.T) {
			server := newDNSServer(t)
			server.set(four, six)
			var dialer net.Dialer
			resolver := &net.Resolver{PreferGo: true, Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
				return dialer.DialContext(ctx, "udp", server.conn.LocalAddr().String())
			}}
			told := make(chan string, 100)
			d, err := discovery.New(discovery.Config{
				Static: static("api.test:6443"), Resolver: resolver, Period: 10 * time.Millisecond,
				Changed: func(f []discovery.Found) { told <- describe(f) }, Log: slog.New(slog.DiscardHandler),
			})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			ended := make(chan error, 1)
			go func() { ended <- d.Run(ctx) }()
			defer func() {
				cancel()
				<-ended
			}()
			for got := ""; got != both; {
				select {
				case got = <-told:
				case <-time.After(30 * time.Second):
					t.Fatalf("at first: found %q", got)
				}
			}
			server.set(c.a, c.aaaa)
			for deadline := time.Now().Add(30 * time.Second); server.heard() < 10 && time.Now().Before(deadline); {
				time.Sleep(time.Millisecond) // the server is asked, which nobody is told
			}
			if got := describe(d.Found()); got != c.want {
				t.Errorf("found %q, want %q", got, c.want)
			}
		})
	}
}
