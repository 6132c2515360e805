package probe_test

import (
	"errors"
	"net/netip"
	"syscall"
	"testing"
	"time"

	"varco.dev/bench/internal/probe"
	"varco.dev/internal/nettest"
)

func TestConnect(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("probe")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	serve := func(address string, answer []byte) {
		l, err := ns.Listen("tcp4", address)
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
				t.Cleanup(func() { c.Close() }) // not before: a close would be an answer
				if answer != nil {
					_, _ = c.Write(answer)
				}
			}
		}()
	}
	want := probe.Answer{Name: 'A', Addr: netip.MustParseAddr("10.200.0.1")}
	serve("127.0.0.1:1", want.Encode())
	serve("127.0.0.1:2", nil)
	err = probe.Run(ns, func(p *probe.Prober) error {
		p.Timeout = 50 * time.Millisecond
		for to, wantErr := range map[string]error{
			"127.0.0.1:1": nil, "127.0.0.1:2": probe.ErrNoAnswer, "127.0.0.1:3": syscall.ECONNREFUSED,
			"192.0.2.1:1": syscall.ENETUNREACH,
		} {
			got, err := p.Connect(netip.MustParseAddrPort(to), netip.Addr{})
			if !errors.Is(err, wantErr) || err == nil && got != want {
				t.Errorf("%s: got %v, %v, want error %v", to, got, err, wantErr)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestSleepIsExact(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("probe")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	const nap, naps = 100 * time.Microsecond, 50
	best := time.Hour
	err = probe.Run(ns, func(*probe.Prober) error {
		for range naps {
			began := time.Now()
			probe.Sleep(nap)
			best = min(best, time.Since(began))
		}
		return nil
	})
	// The best of many, because other work may hold up each of them.
	if err != nil || best < nap || best > 3*nap {
		t.Errorf("the shortest of %d sleeps of %v took %v, %v", naps, nap, best, err)
	}
}
