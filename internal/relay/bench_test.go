package relay_test

import (
	"io"
	"net"
	"testing"
	"time"

	"varco.dev/internal/relay"
)

// BenchmarkTCP is how fast bytes go through a relay, and with "plain" how fast without one.
func BenchmarkTCP(b *testing.B) {
	for _, relayed := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "relayed"}[relayed], func(b *testing.B) {
			at := server(b, func(c *net.TCPConn) {
				io.Copy(io.Discard, c)
				c.Write([]byte("!"))
			})
			if relayed {
				at = startTCP(b, relay.Config{Pick: among(at)}).at
			}
			client := dial(b, at)
			client.SetDeadline(time.Time{}) // the benchmark may take longer
			chunk := make([]byte, 128<<10)
			b.SetBytes(int64(len(chunk)))
			for b.Loop() {
				if _, err := client.Write(chunk); err != nil {
					b.Fatal(err)
				}
			}
			client.CloseWrite()
			io.ReadAll(client)
		})
	}
}

// BenchmarkTCPConnections is how long it takes to open a connection, hear a word and see its end.
func BenchmarkTCPConnections(b *testing.B) {
	for _, relayed := range []bool{false, true} {
		b.Run(map[bool]string{false: "plain", true: "relayed"}[relayed], func(b *testing.B) {
			at := server(b, says("here"))
			if relayed {
				at = startTCP(b, relay.Config{Pick: among(at)}).at
			}
			for b.Loop() {
				if got, err := ask(at); got != "here" {
					b.Fatal(got, err)
				}
			}
		})
	}
}
