package https_test

import (
	"bytes"
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/vishvananda/netlink"

	"varco.dev/internal/apiserverlb/https"
	"varco.dev/internal/nettest"
)

const (
	patience = time.Second     // Config.UserTimeout here
	noticed  = 6 * time.Second // within which somebody who has vanished must be noticed, on a busy machine
)

// wires is a stage whose clients, balancer and backend are on machines of their own.
type wires struct {
	*stage
	client, backend *nettest.Namespace
	http            *http.Client
}

func newWires(t *testing.T) *wires {
	t.Helper()
	nettest.NeedRoot(t)
	world, err := nettest.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { world.Close() })
	w := &wires{client: world.Client}
	balancer, err := world.AddHost("balancer", 11)
	if err != nil {
		t.Fatal(err)
	}
	if w.backend, err = world.AddHost("backend", 21); err != nil {
		t.Fatal(err)
	}
	at := func(host int) string {
		return netip.AddrPortFrom(nettest.NodeNet.Host(host).Addrs()[0], 6443).String()
	}
	listen := func(n *nettest.Namespace) *net.TCPListener {
		l, err := n.Listen("tcp", ":6443")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l.(*net.TCPListener)
	}
	w.stage = newStage(t, func(s *stage, c *https.Config, l *https.Listener) {
		l.Net.Close()
		l.Net = listen(balancer)
		c.UserTimeout = patience
		c.Backends.ServerName = "localhost"
		c.Backends.Dial = func(ctx context.Context, network, _ string) (net.Conn, error) {
			return balancer.DialContext(ctx, network, at(21))
		}
		go forward(listen(w.backend), s.apis[0].addr.String())
		s.balancer.leave(s.apis[1:]...)
	})
	tls := w.tls(nil)
	tls.ServerName = "localhost"
	transport := &http.Transport{TLSClientConfig: tls, DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
		return w.client.DialContext(ctx, network, at(11))
	}}
	t.Cleanup(transport.CloseIdleConnections)
	w.http = &http.Client{Transport: transport}
	return w
}

// forward is a backend's machine in front of a fake API server on another one.
func forward(l net.Listener, to string) {
	for {
		c, err := l.Accept()
		if err != nil {
			return
		}
		go func() {
			defer c.Close()
			next, err := net.Dial("tcp", to)
			if err != nil {
				return
			}
			defer next.Close()
			go func() { io.Copy(next, c); next.Close() }()
			io.Copy(c, next)
		}()
	}
}

// cut takes a machine's cable out.
func cut(t *testing.T, n *nettest.Namespace) {
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
}

// TestVanishedClient wants a client that has vanished to hold nothing for long, also where HTTP does not look after it.
func TestVanishedClient(t *testing.T) {
	t.Parallel()
	w := newWires(t)
	events := make(chan string)
	w.apis[0].answers(watching(events))
	open(t, w.http, w.url+pods+"?watch=true", token())
	cut(t, w.client)
	events <- "{}\n"
	begin := time.Now()
	waitFor(t, func() bool { return w.Stats().Requests == 0 })
	if took := time.Since(begin); took > noticed || w.Stats().Vanished != 1 {
		t.Errorf("after %v, %+v", took, w.Stats())
	}
}

// TestVanishedBackend wants requests to a backend that has vanished to be answered soon.
func TestVanishedBackend(t *testing.T) {
	t.Parallel()
	w := newWires(t)
	do(t, w.http, "GET", w.url+pods, token(), nil) // there is a connection
	cut(t, w.backend)
	begin := time.Now()
	resp, body, err := ask(w.http, "POST", w.url+pods, token(), strings.NewReader("{}"))
	if err != nil || resp.StatusCode < 500 {
		t.Fatalf("got %v %q %v", resp, body, err)
	}
	if took := time.Since(begin); took > noticed {
		t.Errorf("it took %v", took)
	}
}

// TestClientThatDoesNotRead wants one to be waited for that is there.
func TestClientThatDoesNotRead(t *testing.T) {
	t.Parallel()
	w := newWires(t)
	big := bytes.Repeat([]byte("x"), 32<<20)
	w.apis[0].answers(func(rw http.ResponseWriter, _ *http.Request) { rw.Write(big) })
	resp := open(t, w.http, w.url+pods, token())
	time.Sleep(7 * patience) // for longer than it may be silent
	if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(len(big)) {
		t.Errorf("read %d bytes, %v", n, err)
	}
}
