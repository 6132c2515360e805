package https

import (
	"log/slog"
	"net"
	"net/netip"
	"testing"
	"time"
)

// TestEndTakesInWhoWaits wants a door that ends to let in those who have connected, and whom the kernel would reset.
func TestEndTakesInWhoWaits(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{net: l.(*net.TCPListener), crowd: newCrowd(Limits{Connections: 100}), ready: make(chan net.Conn), over: make(chan struct{}), log: slog.New(slog.DiscardHandler)}
	const all = 50
	for range all {
		c, err := net.Dial("tcp", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	accept := func() bool {
		c, err := d.Accept()
		if err == nil {
			c.Close()
		}
		return err == nil
	}
	n := 0
	if accept() { // the others wait at the door, and in the kernel
		n++
	}
	ended := make(chan struct{})
	go func() { d.end(); close(ended) }()
	time.Sleep(50 * time.Millisecond) // it has begun to end
	for accept() {
		n++
	}
	<-ended
	if n != all {
		t.Errorf("%d were let in of %d", n, all)
	}
	if c, err := net.DialTimeout("tcp", l.Addr().String(), time.Second); err == nil {
		c.Close()
		t.Error("it is open")
	}
}

// TestEndOfDoorThatWasNeverOpen wants it not to wait for anybody.
func TestEndOfDoorThatWasNeverOpen(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	d := &door{net: l.(*net.TCPListener), over: make(chan struct{})}
	d.end()
	d.end()
	if _, err := d.Accept(); err == nil {
		t.Error("it lets in")
	}
}

// TestProxiedHasNoZone wants link-local peers to be told by their network.
func TestProxiedHasNoZone(t *testing.T) {
	d := &door{from: []netip.Prefix{netip.MustParsePrefix("fe80::/10")}}
	if !d.proxied(netip.MustParseAddr("fe80::1%2")) || d.proxied(netip.MustParseAddr("fd00::1")) {
		t.Error("a zone hides the network")
	}
}
