package world_test

import (
	"io"
	"net"
	"net/netip"
	"testing"

	"varco.dev/bench/internal/probe"
	"varco.dev/bench/internal/world"
	"varco.dev/internal/nettest"
)

func newWorld(t *testing.T, api string) *world.World {
	t.Helper()
	nettest.NeedRoot(t)
	w, err := world.New(t.Context(), api)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := w.Close(); err != nil {
			t.Error(err)
		}
	})
	return w
}

func TestEndpointsAnswerForTheirSides(t *testing.T) {
	w := newWorld(t, "127.0.0.1:1")
	tests := []struct {
		name, to, from string
		want           byte // 0 is a refusal
	}{
		{"the first of A", "10.200.0.1:8080", "", 'A'},
		{"the last of A", "10.200.249.255:8080", "", 'A'},
		{"one of B", "10.201.3.7:8080", "", 'B'},
		{"from another address of the client", "10.201.3.7:8080", "10.202.0.77", 'B'},
		{"another port", "10.200.0.1:8081", "", 0},
		{"a Service without a proxy", "10.96.1.0:80", "10.202.0.77", 0},
	}
	err := probe.Run(w.Client, func(p *probe.Prober) error {
		for _, tt := range tests {
			var from netip.Addr
			if tt.from != "" {
				from = netip.MustParseAddr(tt.from)
			}
			to := netip.MustParseAddrPort(tt.to)
			got, err := p.Connect(to, from)
			if (err != nil) != (tt.want == 0) || got.Name != tt.want {
				t.Errorf("%s: got %q, %v, want %q", tt.name, got.Name, err, tt.want)
			}
			if err == nil && got.Addr != to.Addr() {
				t.Errorf("%s: answered as %s", tt.name, got.Addr)
			}
			if err == probe.ErrNoAnswer {
				t.Errorf("%s: silence instead of a refusal", tt.name)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestTheNodeReachesTheAPIServer(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			_, _ = io.Copy(c, c)
			c.Close()
		}
	}()
	w := newWorld(t, l.Addr().String())
	c, err := w.Node.DialContext(t.Context(), "tcp", world.APIServer.String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "list"); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 4)
	if _, err := io.ReadFull(c, buf); err != nil || string(buf) != "list" {
		t.Errorf("got %q, %v, want what was sent", buf, err)
	}
}
