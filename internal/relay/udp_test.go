package relay_test

import (
	"context"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/relay"
)

// wire is a socket whose datagrams are those of a test.
type wire struct {
	in, out chan datagram
	closed  chan struct{}
}

type datagram struct {
	client netip.AddrPort
	text   string
}

func newWire() *wire {
	return &wire{in: make(chan datagram), out: make(chan datagram, 100), closed: make(chan struct{})}
}

func (w *wire) ReadFromUDPAddrPort(b []byte) (int, netip.AddrPort, error) {
	select {
	case d := <-w.in:
		return copy(b, d.text), d.client, nil
	case <-w.closed:
		return 0, netip.AddrPort{}, net.ErrClosed
	}
}

func (w *wire) WriteToUDPAddrPort(b []byte, client netip.AddrPort) (int, error) {
	w.out <- datagram{client, string(b)}
	return len(b), nil
}

func (w *wire) Close() error {
	select {
	case <-w.closed:
	default:
		close(w.closed)
	}
	return nil
}

// clientOf returns the address of a client by its number.
func clientOf(n int) netip.AddrPort {
	return netip.AddrPortFrom(netip.IPv6Loopback(), uint16(1000+n))
}

// backends are echo servers that say which session they answer: "backend#session text".
type backends struct {
	opened int
	peers  []net.Conn // of the sessions, at the backend
	refuse bool
}

func (b *backends) dial(_ context.Context, _, address string) (net.Conn, error) {
	if b.refuse {
		return nil, fmt.Errorf("no way to %s", address)
	}
	near, far := net.Pipe()
	name := fmt.Sprintf("%s#%d", address, b.opened)
	b.opened++
	b.peers = append(b.peers, far)
	go func() {
		buf := make([]byte, 100)
		for {
			n, err := far.Read(buf)
			if err != nil {
				return
			}
			fmt.Fprintf(far, "%s %s", name, buf[:n])
		}
	}()
	return near, nil
}

// world is a UDP relay in a bubble, with backends.
type world struct {
	*wire
	*backends
	slots *relay.Slots
}

func startUDP(t *testing.T, c relay.Config) *world {
	t.Helper()
	w := &world{newWire(), &backends{}, relay.NewSlots(2)}
	c.Slots, c.Dial, c.Log = w.slots, w.dial, slog.New(slog.DiscardHandler)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- relay.NewUDP(w, c).Run(ctx) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Error(err)
		}
		if n := w.slots.Taken(); n != 0 {
			t.Errorf("%d slots are taken at the end", n)
		}
	})
	return w
}

// ask sends a datagram of a client, and returns what comes back: "" is nothing.
func (w *world) ask(t *testing.T, client int, text string) string {
	t.Helper()
	w.in <- datagram{clientOf(client), text}
	synctest.Wait()
	select {
	case d := <-w.out:
		if d.client != clientOf(client) {
			t.Errorf("the answer to %v went to %v", clientOf(client), d.client)
		}
		return d.text
	default:
		return ""
	}
}

func (w *world) want(t *testing.T, client int, want string) {
	t.Helper()
	if got := w.ask(t, client, "hi"); got != want {
		t.Errorf("client %d: got %q, want %q", client, got, want)
	}
}

var (
	one = netip.MustParseAddrPort("10.0.0.1:53")
	two = netip.MustParseAddrPort("10.0.0.2:53")
)

func TestUDPSessions(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startUDP(t, relay.Config{Pick: among(one)})
		w.want(t, 1, "10.0.0.1:53#0 hi")
		w.want(t, 2, "10.0.0.1:53#1 hi")
		w.want(t, 1, "10.0.0.1:53#0 hi")
		w.peers[1].Write([]byte("more"))
		synctest.Wait()
		if diff := cmp.Diff(datagram{clientOf(2), "more"}, <-w.out, cmp.AllowUnexported(datagram{}),
			cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
			t.Errorf("a datagram that nobody asked for: -want +got:\n%s", diff)
		}
	})
}

// TestUDPIdle wants sessions to end when they were idle for two minutes, counted from the last datagram of either side.
func TestUDPIdle(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startUDP(t, relay.Config{Pick: among(one)})
		w.want(t, 1, "10.0.0.1:53#0 hi")
		time.Sleep(100 * time.Second) // of the fake clock
		w.want(t, 1, "10.0.0.1:53#0 hi")
		time.Sleep(100 * time.Second) // of the fake clock
		w.peers[0].Write([]byte("more"))
		time.Sleep(119 * time.Second) // of the fake clock
		synctest.Wait()
		if got := w.slots.Taken(); got != 1 {
			t.Errorf("%d sessions after 119 s, want 1", got)
		}
		time.Sleep(2 * time.Second) // of the fake clock
		synctest.Wait()
		if got := w.slots.Taken(); got != 0 {
			t.Errorf("%d sessions after 121 s, want none", got)
		}
		<-w.out
		w.want(t, 1, "10.0.0.1:53#1 hi")
	})
}

// TestUDPIsBounded has two slots for three clients: the session that was idle longest makes room.
func TestUDPIsBounded(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startUDP(t, relay.Config{Pick: among(one)})
		w.want(t, 1, "10.0.0.1:53#0 hi")
		w.want(t, 2, "10.0.0.1:53#1 hi")
		w.want(t, 1, "10.0.0.1:53#0 hi")
		w.want(t, 3, "10.0.0.1:53#2 hi")
		w.want(t, 1, "10.0.0.1:53#0 hi")
		w.want(t, 2, "10.0.0.1:53#3 hi")
		if got := w.slots.Taken(); got != 2 {
			t.Errorf("%d sessions, want 2", got)
		}
	})
}

// TestUDPSharesSlots has one relay take all of them: another one's clients get none until they are free.
func TestUDPSharesSlots(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startUDP(t, relay.Config{Pick: among(one)})
		w.want(t, 1, "10.0.0.1:53#0 hi")
		w.want(t, 2, "10.0.0.1:53#1 hi")
		other := &world{newWire(), &backends{}, w.slots}
		c := relay.Config{Pick: among(two), Slots: w.slots, Dial: other.dial, Log: slog.New(slog.DiscardHandler)}
		ended := make(chan error, 1)
		go func() { ended <- relay.NewUDP(other, c).Run(t.Context()) }()
		other.want(t, 3, "")
		time.Sleep(3 * time.Minute) // of the fake clock
		other.want(t, 3, "10.0.0.2:53#0 hi")
		other.Close() // ends it
		if err := <-ended; err != nil {
			t.Error(err)
		}
	})
}

// TestUDPKeep wants a session to get another backend when it may not keep its own.
func TestUDPKeep(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		there := []netip.AddrPort{one}
		w := startUDP(t, relay.Config{
			Pick: func(netip.AddrPort, []netip.AddrPort) (netip.AddrPort, bool) { return there[0], true },
			Keep: func(b netip.AddrPort) bool { return slices.Contains(there, b) },
		})
		w.want(t, 1, "10.0.0.1:53#0 hi")
		there = []netip.AddrPort{two, one}
		w.want(t, 1, "10.0.0.1:53#0 hi")
		w.want(t, 2, "10.0.0.2:53#1 hi")
		there = []netip.AddrPort{two}
		w.want(t, 1, "10.0.0.2:53#2 hi")
	})
}

// TestUDPErrors wants sessions to end with their backend, and clients without one to be left alone.
func TestUDPErrors(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := startUDP(t, relay.Config{Pick: among(one, two)})
		w.want(t, 1, "10.0.0.1:53#0 hi")
		w.peers[0].Close()
		synctest.Wait()
		w.want(t, 1, "10.0.0.1:53#1 hi")
		w.peers[1].Close()
		w.refuse = true
		synctest.Wait()
		w.want(t, 1, "")
		if got := w.slots.Taken(); got != 0 {
			t.Errorf("%d sessions, want none", got)
		}
		w.refuse = false
		w.want(t, 1, "10.0.0.1:53#2 hi")
	})
}

// TestUDPSockets asks a real server, and one that is not there: the ICMP error ends the session.
func TestUDPSockets(t *testing.T) {
	server, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer server.Close()
	go func() {
		buf := make([]byte, 1<<16)
		for {
			n, from, err := server.ReadFromUDPAddrPort(buf)
			if err != nil {
				return
			}
			server.WriteToUDPAddrPort(buf[:n], from)
		}
	}()
	front, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	gone, picks := udpAbsent(t), make(chan netip.AddrPort, 10)
	next := gone
	c := relay.Config{Slots: relay.NewSlots(4), Log: slog.New(slog.DiscardHandler), Pick: func(netip.AddrPort, []netip.AddrPort) (netip.AddrPort, bool) {
		at := next
		next = server.LocalAddr().(*net.UDPAddr).AddrPort()
		picks <- at
		return at, true
	}}
	ended := make(chan error, 1)
	ctx, cancel := context.WithCancel(t.Context())
	go func() { ended <- relay.NewUDP(front, c).Run(ctx) }()
	client, err := net.DialUDP("udp4", nil, front.LocalAddr().(*net.UDPAddr))
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	client.SetDeadline(time.Now().Add(within))
	client.Write([]byte("lost"))
	if at := <-picks; at != gone {
		t.Fatalf("picked %v first", at)
	}
	for deadline := time.Now().Add(within); c.Slots.Taken() > 0 && time.Now().Before(deadline); {
		time.Sleep(time.Millisecond) // nobody tells when the session ends
	}
	text := make([]byte, 60000) // more than Ethernet takes in one piece
	client.Write(text)
	got := make([]byte, 1<<16)
	if n, err := client.Read(got); err != nil || n != len(text) {
		t.Errorf("got %d bytes and %v, want %d", n, err, len(text))
	}
	cancel()
	if err := <-ended; err != nil || c.Slots.Taken() != 0 {
		t.Errorf("ended with %v, and %d slots taken", err, c.Slots.Taken())
	}
}

// udpAbsent is an address where nobody listens.
func udpAbsent(t *testing.T) netip.AddrPort {
	t.Helper()
	c, err := net.ListenUDP("udp4", &net.UDPAddr{IP: net.IPv4(127, 0, 0, 1)})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	return c.LocalAddr().(*net.UDPAddr).AddrPort()
}
