//go:build linux

package loop_test

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"varco.dev/internal/nettest"
	"varco.dev/internal/relay/loop"
)

const (
	noticed = 6 * time.Second  // within which a cable that was cut must be noticed
	pause   = 8 * time.Second  // longer than loop.DefaultUserTimeout
	unheard = 10 * time.Second // the same where nothing is sent: five probes, one a second, must be lost after 3 s
)

// site is a client, a relay and a backend, each on a machine of its own.
type site struct {
	client, server *nettest.Namespace
	relay          *process
	near, far      *net.TCPConn // the client's end and the backend's end of one session
}

// newSite makes one with a session of which both sides have spoken.
func newSite(t *testing.T, family int, settings ...string) *site {
	t.Helper()
	w, err := nettest.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	s := &site{client: w.Client}
	proxy, err := w.AddHost("proxy", 11)
	if err != nil {
		t.Fatal(err)
	}
	if s.server, err = w.AddHost("server", 21); err != nil {
		t.Fatal(err)
	}
	l, err := s.server.Listen("tcp", ":6443")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	s.relay = startProcess(t, "relay", proxy)
	for _, line := range settings {
		s.relay.tell(t, "%s", line)
	}
	s.relay.tell(t, "relay :6443 %v", netip.AddrPortFrom(nettest.NodeNet.Host(21).Addrs()[family], 6443))
	s.relay.hear(t)
	s.open(t, l, netip.AddrPortFrom(nettest.NodeNet.Host(11).Addrs()[family], 6443))
	return s
}

func (s *site) open(t *testing.T, l net.Listener, at netip.AddrPort) {
	t.Helper()
	near, err := s.client.DialContext(t.Context(), "tcp", at.String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { near.Close() })
	far, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { far.Close() })
	s.near, s.far = near.(*net.TCPConn), far.(*net.TCPConn)
	for _, ends := range [][2]net.Conn{{near, far}, {far, near}} {
		ends[0].SetDeadline(time.Now().Add(6 * within))
		io.WriteString(ends[0], "hello")
		io.ReadFull(ends[1], make([]byte, 5))
	}
	s.relay.wants(t, "0 Connected", "0 Answered")
}

// cut takes a machine's cable out; nobody else's link goes down by it.
func cut(t *testing.T, n *nettest.Namespace) time.Time {
	t.Helper()
	err := n.Netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName("eth0")
		if err != nil {
			return err
		}
		return h.LinkSetDown(l)
	})
	if err != nil {
		t.Fatal(err)
	}
	return time.Now()
}

// TestCableCut cuts a machine off, without a packet that tells of it: the other side's connection is reset soon.
func TestCableCut(t *testing.T) {
	nettest.NeedRoot(t)
	t.Parallel()
	for _, c := range []struct {
		name         string
		cut          func(*site) (gone *nettest.Namespace, left *net.TCPConn)
		sends, reads func(*site) *net.TCPConn // optional
		within       time.Duration
	}{
		{"backend, idle", cutServer, nil, nil, unheard},
		{"backend, client sends", cutServer, near, far, noticed},
		{"backend, backend sends", cutServer, far, near, unheard},
		{"client, backend sends", cutClient, far, near, noticed},
		{"client, client sends", cutClient, near, far, 4 * noticed}, // idle as far as one can see
	} {
		for family, name := range []string{"IPv4", "IPv6"} {
			t.Run(c.name+" "+name, func(t *testing.T) {
				t.Parallel()
				s := newSite(t, family)
				ends := make(chan error, 2) // of the side that is left
				gone, left := c.cut(s)
				ending := func(end *net.TCPConn, err error) {
					if end == left {
						ends <- err
					}
				}
				if c.sends != nil {
					go func() { ending(c.sends(s), flood(c.sends(s))) }()
					go func() { ending(c.reads(s), readError(c.reads(s))) }()
				} else {
					go func() { ends <- readError(left) }()
				}
				begin := cut(t, gone)
				err := <-ends
				if took := time.Since(begin); took > c.within {
					t.Errorf("ended after %v, want within %v", took, c.within)
				}
				wantReset(t, err)
				s.relay.wants(t, "0 Ended")
			})
		}
	}
}

// flood writes until it cannot.
func flood(c *net.TCPConn) error {
	_, err := io.Copy(struct{ io.Writer }{c}, newFlow(1, 1<<40))
	return err
}

func near(s *site) *net.TCPConn { return s.near }
func far(s *site) *net.TCPConn  { return s.far }

func cutServer(s *site) (*nettest.Namespace, *net.TCPConn) { return s.server, s.near }
func cutClient(s *site) (*nettest.Namespace, *net.TCPConn) { return s.client, s.far }

// TestIdleClientCut is noticed by keepalive probes alone, which clients get more rarely than backends do.
func TestIdleClientCut(t *testing.T) {
	nettest.NeedRoot(t)
	t.Parallel()
	s := newSite(t, 0, "keepalive 500ms")
	begin := cut(t, s.client)
	wantReset(t, readError(s.far))
	if took := time.Since(begin); took > 10*time.Second {
		t.Errorf("ended after %v, want within 10 s", took)
	}
}

// TestStalledReaderCut has a reader that stopped reading be cut off: nobody keeps it for ever.
func TestStalledReaderCut(t *testing.T) {
	nettest.NeedRoot(t)
	t.Parallel()
	s := newSite(t, 0)
	ended := make(chan error, 1)
	go func() { ended <- flood(s.far) }()
	time.Sleep(pause / 2) // in which the window is closed and the watchdog has got used to it
	begin := cut(t, s.client)
	wantReset(t, <-ended)
	if took := time.Since(begin); took > 30*time.Second {
		t.Errorf("ended after %v, want within 30 s", took)
	}
	s.relay.wants(t, "0 Ended")
}

// TestStalledReader has a reader pause while its kernel acknowledges what asks whether it reads again: it is not ended,
// and gets all.
func TestStalledReader(t *testing.T) {
	t.Parallel()
	const size = 64 << 20
	sends := func(c *net.TCPConn) heard {
		err := send(c, 1, size)
		keeps(c)
		return heard{err: err}
	}
	pauses := func(c *net.TCPConn) heard {
		time.Sleep(pause) // it is the time that must not count
		s, err := sumOf(c)
		return heard{s, err}
	}
	for name, sides := range map[string][2]func(*net.TCPConn) heard{"client": {pauses, sends}, "backend": {sends, pauses}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			results := make(chan heard, 1)
			r := start(t, options{}, serve(t, func(c *net.TCPConn) { results <- sides[1](c) }))
			client := r.dial(t)
			client.SetDeadline(time.Now().Add(6 * within))
			got := sides[0](client)
			client.Close()
			other := <-results
			if name == "backend" {
				got, other = other, got
			}
			wantFlow(t, "the one that pauses", got, 1, size)
			if other.err != nil {
				t.Errorf("the other one got %v", other.err)
			}
		})
	}
}

// TestStoppedBackend has a backend whose process stands still while its kernel acknowledges: its sessions stay, whatever
// they have sent, until End is called.
func TestStoppedBackend(t *testing.T) {
	t.Parallel()
	for name, size := range map[string]int{"idle": 0, "request": 100, "much": 64 << 20} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			p := startProcess(t, "peers", nil)
			backend := netip.MustParseAddrPort(p.hear(t))
			r := start(t, options{timing: loop.Timing{KeepAlive: time.Second}}, backend)
			client := r.dial(t)
			client.SetDeadline(time.Now().Add(6 * within))
			exchange(t, client, "hello")
			if err := p.Process.Signal(syscall.SIGSTOP); err != nil {
				t.Fatal(err)
			}
			wrote := make(chan error, 1)
			go func() { _, err := client.Write(make([]byte, size)); wrote <- err }()
			time.Sleep(pause) // it is the time that must not count
			r.wants(t, "Connected Answered")
			if n := r.End(backend, "it hangs"); n != 1 {
				t.Errorf("%d sessions were ended, want 1", n)
			}
			wantReset(t, errors.Join(readError(client), <-wrote)) // one of them hears of the reset
			r.wants(t, "Connected Answered Ended")
			p.Process.Signal(syscall.SIGCONT)
		})
	}
}

// TestResumedBackend is the same, but the backend goes on in the end: nothing is lost.
func TestResumedBackend(t *testing.T) {
	t.Parallel()
	p := startProcess(t, "peers", nil)
	r := start(t, options{timing: loop.Timing{KeepAlive: time.Second}}, netip.MustParseAddrPort(p.hear(t)))
	client := r.dial(t)
	client.SetDeadline(time.Now().Add(6 * within))
	exchange(t, client, "hello")
	p.Process.Signal(syscall.SIGSTOP)
	const size = 32 << 20
	time.AfterFunc(pause, func() { p.Process.Signal(syscall.SIGCONT) })
	wantFlow(t, "client", both(client, 1, size), 1, size)
	r.wants(t, "Connected Answered Ended")
}
