package apiserverlb_test

import (
	"fmt"
	"net"
	"strings"
	"sync"
	"testing"
	"time"

	"varco.dev/internal/apiserverlb/config"
)

// TestReadyWays asks whether a balancer is ready whose listeners are not simple ones.
func TestReadyWays(t *testing.T) {
	for name, c := range map[string]struct {
		host string
		from []string
	}{
		"IPv6":                       {"[::1]", nil},
		"all addresses":              {"", nil},
		"all addresses of IPv4":      {"0.0.0.0", nil},
		"with the PROXY protocol":    {"127.0.0.1", []string{"127.0.0.0/8"}},
		"with it, from others":       {"127.0.0.1", []string{"10.0.0.0/8"}},
		"with it, all addresses":     {"", []string{"127.0.0.0/8", "::1"}},
		"with it, another loopback":  {"127.0.0.77", []string{"127.0.0.77"}},
		"with it, not for ourselves": {"127.0.0.77", []string{"127.0.0.1"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := startServer(t)
			settings := settings(t, s)
			_, port, err := net.SplitHostPort(settings.Listeners[0].Address)
			if err != nil {
				t.Fatal(err)
			}
			settings.Listeners = []config.Listener{{Address: c.host + ":" + port, ProxyProtocol: config.ProxyProtocol{From: c.from}}}
			settings.Complete()
			b := start(t, settings, s)
			if err := b.Ready(t.Context()); err != nil {
				t.Error(err)
			}
			if s.asked.Load() == 0 {
				t.Error("no API server was asked")
			}
		})
	}
}

// TestReadyCosts asks time and again, from many sides: an API server is asked once a second.
func TestReadyCosts(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := startServer(t)
	b := start(t, settings(t, s), s)
	began := time.Now()
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			for range 40 {
				if err := b.Ready(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	all.Wait()
	b.await("the own connections have ended well", 5*time.Second, func() bool {
		return strings.Contains(b.scrape(), fmt.Sprintf("ended_total{reason=\"done\"} %d\n", s.asked.Load()))
	})
	if n, most := s.asked.Load(), 1+int64(time.Since(began)/time.Second); n < 1 || n > most {
		t.Errorf("2000 questions had %d go to the API server, want %d at most", n, most)
	}
}

// TestPerSource has one source use up what it may have: it gets no more, others do, and so do we ourselves.
func TestPerSource(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := startServer(t)
	c := settings(t, s)
	c.Limits.PerSource = 2
	b := start(t, c, s)
	from := func(ip string) (net.Conn, error) {
		conn, err := (&net.Dialer{LocalAddr: &net.TCPAddr{IP: net.ParseIP(ip)}}).Dial("tcp", b.addr)
		if err != nil {
			return nil, err
		}
		t.Cleanup(func() { conn.Close() })
		_ = conn.SetDeadline(time.Now().Add(300 * time.Millisecond)) // for what stays open
		_, err = conn.Read(make([]byte, 1))
		return conn, err
	}
	open := func(err error) bool { return err != nil && strings.Contains(err.Error(), "timeout") }
	for range 2 {
		if _, err := from("127.0.0.9"); !open(err) {
			t.Errorf("one within the limit: %v", err)
		}
	}
	if _, err := from("127.0.0.9"); open(err) {
		t.Error("one beyond the limit stays open")
	}
	if _, err := from("127.0.0.10"); !open(err) {
		t.Errorf("one of another source: %v", err)
	}
	if err := b.Ready(t.Context()); err != nil {
		t.Errorf("not ready because of one source: %v", err)
	}
	if n := b.Status().TurnedAway; n != 1 {
		t.Errorf("%d were turned away", n)
	}
}

// TestSwappedAddresses has two listeners take each other's place, one be called by another name, and one be written in
// another way: their sockets stay, and so do connections.
func TestSwappedAddresses(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := startServer(t)
	c := settings(t, s)
	other := settings(t, s).Listeners[0].Address
	port := other[strings.LastIndex(other, ":"):]
	c.Listeners = []config.Listener{{Name: "a", Address: c.Listeners[0].Address}, {Name: "b", Address: port}}
	c.Complete()
	b := start(t, c, s)
	k := b.kept()
	for _, listeners := range [][]config.Listener{
		{{Name: "b", Address: c.Listeners[0].Address}, {Name: "a", Address: port}},
		{{Name: "c", Address: c.Listeners[0].Address}, {Name: "a", Address: "[::]" + port}},
	} {
		next := c
		next.Listeners = listeners
		next.Complete()
		if err := b.Apply(t.Context(), next); err != nil {
			t.Fatal(err)
		}
		for _, b.addr = range []string{c.Listeners[0].Address, other} {
			if addr, err := b.once(); addr != s.addr || err != nil {
				t.Errorf("%s: %q, %v", b.addr, addr, err)
			}
		}
	}
	if addr, err := k.get("/"); addr != s.addr || err != nil {
		t.Errorf("the connection from before: %q, %v", addr, err)
	}
	part := c
	part.Listeners = []config.Listener{{Name: "a", Address: "127.0.0.1" + port}}
	part.Complete()
	if err := b.Apply(t.Context(), part); err == nil || !strings.Contains(err.Error(), "end the balancer before it starts again") {
		t.Errorf("an address that is a part of another: %v", err)
	}
}

// TestZone has one server of three in the balancer's own zone: it gets all clients, others while it is red, and then again.
func TestZone(t *testing.T) {
	t.Parallel() // it waits more than it works
	servers := []*server{startServer(t), startServer(t), startServer(t)}
	c := settings(t, servers...)
	c.Zone = "here"
	c.Backends.Static[1].Zone = "here"
	b := start(t, c, servers...)
	b.proven(servers...)
	for range 10 {
		if addr, err := b.once(); addr != servers[1].addr || err != nil {
			t.Errorf("went to %q, %v", addr, err)
		}
	}
	servers[1].ready.Store(500)
	b.awaitState(servers[1], "Draining")
	for range 10 {
		if addr, err := b.once(); addr == servers[1].addr || err != nil {
			t.Errorf("went to %q, %v", addr, err)
		}
	}
	c.Zone = "elsewhere"
	servers[1].ready.Store(200)
	b.awaitState(servers[1], "Up")
	b.await("clients are back in the zone", 5*time.Second, func() bool { return first(b.once()) == servers[1].addr })
	if err := b.Apply(t.Context(), c); err != nil {
		t.Fatal(err)
	}
	b.await("no zone is preferred", 5*time.Second, func() bool { return first(b.once()) != servers[1].addr })
}
