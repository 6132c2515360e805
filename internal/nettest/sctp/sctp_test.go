package sctp_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"varco.dev/internal/nettest"
	"varco.dev/internal/nettest/sctp"
)

const port = 7001

// serve echoes every message on port in the namespace until the test ends.
func serve(t *testing.T, ns *nettest.Namespace) *sctp.Listener {
	t.Helper()
	var l *sctp.Listener
	err := ns.Do(func() (err error) {
		l, err = sctp.Listen(fmt.Sprintf("[::]:%d", port))
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go echo(c)
		}
	}()
	return l
}

func echo(c *sctp.Conn) {
	defer c.Close()
	b := make([]byte, 1<<16)
	for {
		n, err := c.Read(b)
		if err != nil {
			return
		}
		if _, err := c.Write(append([]byte(c.RemoteAddr().String()+" "), b[:n]...)); err != nil {
			return
		}
	}
}

// ask opens an association, sends one message and returns the answer.
func ask(ctx context.Context, d *sctp.Dialer, to netip.AddrPort, message []byte) (string, error) {
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	c, err := d.DialContext(ctx, to.String())
	if err != nil {
		return "", err
	}
	defer c.Close()
	deadline, _ := ctx.Deadline()
	c.SetDeadline(deadline)
	if _, err := c.Write(message); err != nil {
		return "", err
	}
	b := make([]byte, 1<<16)
	n, err := c.Read(b)
	return string(b[:n]), err
}

func newWorld(t *testing.T) (*nettest.World, *nettest.Namespace) {
	t.Helper()
	nettest.NeedRoot(t)
	w, err := nettest.NewWorld()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { w.Close() })
	host, err := w.AddHost("host", 11)
	if err != nil {
		t.Fatal(err)
	}
	return w, host
}

func TestEcho(t *testing.T) {
	w, host := newWorld(t)
	serve(t, host)
	d := &sctp.Dialer{Dial: w.Client.DialContext}
	for i, addr := range nettest.NodeNet.Host(11).Addrs() {
		for _, size := range []int{1, 1000, 40000} {
			t.Run(fmt.Sprintf("%s %d bytes", addr, size), func(t *testing.T) {
				message := bytes.Repeat([]byte("x"), size)
				got, err := ask(t.Context(), d, netip.AddrPortFrom(addr, port), message)
				if err != nil {
					t.Fatal(err)
				}
				from, body, _ := strings.Cut(got, " ")
				seen, err := netip.ParseAddrPort(from)
				if err != nil || seen.Addr() != nettest.ClientNet.Host(nettest.ClientHost).Addrs()[i] {
					t.Errorf("client address seen = %q", from)
				}
				if body != string(message) {
					t.Errorf("echo has %d bytes, want %d", len(body), size)
				}
			})
		}
	}
}

func TestManyAtOnce(t *testing.T) {
	w, host := newWorld(t)
	serve(t, host)
	d := &sctp.Dialer{Dial: w.Client.DialContext}
	to := netip.AddrPortFrom(nettest.NodeNet.Host(11).V4.Addr(), port)
	var wg sync.WaitGroup
	for i := range 50 {
		wg.Go(func() {
			want := fmt.Sprintf("message %d", i)
			got, err := ask(t.Context(), d, to, []byte(want))
			if err != nil || !strings.HasSuffix(got, want) {
				t.Errorf("association %d: got %q, %v", i, got, err)
			}
		})
	}
	wg.Wait()
}

func TestRefusedAtOnce(t *testing.T) {
	w, _ := newWorld(t)
	for _, addr := range nettest.NodeNet.Host(11).Addrs() {
		d := &sctp.Dialer{Dial: w.Client.DialContext}
		start := time.Now()
		_, err := ask(t.Context(), d, netip.AddrPortFrom(addr, port), []byte("x"))
		// Nothing takes SCTP there, and the kernel says so by ICMP. A second is for finding the neighbour: the first
		// solicitation may come before the new link carries anything.
		if err == nil || time.Since(start) > 3*time.Second {
			t.Errorf("to %s without a listener: got %v after %s", addr, err, time.Since(start))
		}
		if addr.Is4() && !errors.Is(err, syscall.ENOPROTOOPT) {
			t.Errorf("to %s without a listener: got %v, want %v", addr, err, syscall.ENOPROTOOPT)
		}
	}
}

func TestCloseShutsDownAndRefuses(t *testing.T) {
	w, host := newWorld(t)
	l := serve(t, host)
	d := &sctp.Dialer{Dial: w.Client.DialContext}
	to := netip.AddrPortFrom(nettest.NodeNet.Host(11).V4.Addr(), port)
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	c, err := d.DialContext(ctx, to.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	c.SetDeadline(time.Now().Add(5 * time.Second))
	if _, err := c.Write([]byte("x")); err != nil {
		t.Fatal(err)
	}
	b := make([]byte, 100)
	if _, err := c.Read(b); err != nil {
		t.Fatal(err)
	}
	start := time.Now()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if took := time.Since(start); took > time.Second {
		t.Errorf("closing took %s", took)
	}
	if _, err := c.Read(b); err == nil || errors.Is(err, context.DeadlineExceeded) || errors.Is(err, io.ErrShortBuffer) {
		t.Errorf("read after the server's shutdown: %v", err)
	}
	if _, err := l.Accept(); err == nil {
		t.Error("closed listener accepted")
	}
}
