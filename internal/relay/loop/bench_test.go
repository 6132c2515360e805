//go:build linux

package loop_test

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// through runs a benchmark against a server without and with a relay between.
func through(b *testing.B, server func(*net.TCPConn), fn func(*testing.B, netip.AddrPort)) {
	for _, relayed := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "relayed"}[relayed], func(b *testing.B) {
			at := serve(b, server)
			if relayed {
				at = start(b, options{}, at).at
			}
			fn(b, at)
		})
	}
}

// BenchmarkRequests is how long it takes to say a word and hear it over 32 kept connections at a time.
func BenchmarkRequests(b *testing.B) {
	through(b, echoes, func(b *testing.B, at netip.AddrPort) {
		turns := make(chan struct{}, 1024)
		var wg sync.WaitGroup
		for range 32 {
			c := dial(b, at)
			c.SetDeadline(time.Time{}) // the benchmark may take longer
			wg.Go(func() {
				word := make([]byte, 128)
				for range turns {
					if err := tryExchange(c, word); err != nil {
						b.Error(err)
					}
				}
			})
		}
		for b.Loop() {
			turns <- struct{}{}
		}
		close(turns)
		wg.Wait()
	})
}

// BenchmarkConnections is how long it takes to open a connection, say a word, hear it, and leave.
func BenchmarkConnections(b *testing.B) {
	through(b, echoes, func(b *testing.B, at netip.AddrPort) {
		word := make([]byte, 128)
		for b.Loop() {
			c, err := net.Dial("tcp", at.String())
			if err != nil {
				b.Fatal(err)
			}
			if err := tryExchange(c, word); err != nil {
				b.Fatal(err)
			}
			abort(c.(*net.TCPConn)) // no port is left to wait
		}
	})
}

// BenchmarkBulk is how fast bytes go through.
func BenchmarkBulk(b *testing.B) {
	keepsAll := func(c *net.TCPConn) {
		io.Copy(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{c})
		c.Write([]byte("!"))
	}
	through(b, keepsAll, func(b *testing.B, at netip.AddrPort) {
		c := dial(b, at)
		c.SetDeadline(time.Time{}) // the benchmark may take longer
		chunk := make([]byte, 128<<10)
		b.SetBytes(int64(len(chunk)))
		for b.Loop() {
			if _, err := c.Write(chunk); err != nil {
				b.Fatal(err)
			}
		}
		c.CloseWrite()
		readError(c) // until all has arrived
	})
}
