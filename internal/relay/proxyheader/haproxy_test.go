package proxyheader_test

import (
	"net/netip"
	"testing"

	"varco.dev/internal/relay/proxyheader"
)

// TestHAProxyWrites reads what HAProxy 2.6 was seen to write: with send-proxy, send-proxy-v2, the option of the checksum
// together with an identifier, and in a health check.
func TestHAProxyWrites(t *testing.T) {
	for text, want := range map[string]proxyheader.Header{
		"PROXY TCP4 127.0.0.1 127.88.0.1 42286 28001\r\n": {
			Source: netip.MustParseAddrPort("127.0.0.1:42286"), Destination: netip.MustParseAddrPort("127.88.0.1:28001"),
		},
		"PROXY TCP6 ::1 ::1 55458 28001\r\n": {
			Source: netip.MustParseAddrPort("[::1]:55458"), Destination: netip.MustParseAddrPort("[::1]:28001"),
		},
		signature + "!\x11\x00\x0c\x7f\x00\x00\x01\x7fX\x00\x01\xdf\xf2mb": {
			Source: netip.MustParseAddrPort("127.0.0.1:57330"), Destination: netip.MustParseAddrPort("127.88.0.1:28002"),
		},
		signature + "!\x11\x00#\x7f\x00\x00\x01\x7fX\x00\x01\xe9\\mc\x03\x00\x04YK<\x89\x05\x00\r7F000001:E95C": {
			Source: netip.MustParseAddrPort("127.0.0.1:59740"), Destination: netip.MustParseAddrPort("127.88.0.1:28003"),
		},
		signature + " \x00\x00\x00": {Local: true},
	} {
		got, n, err := proxyheader.Parse([]byte(text + "hello"))
		if diff := equal(want, got); err != nil || n != len(text) || diff != "" {
			t.Errorf("%q: got length %d, %v, (-want +got):\n%s", text, n, err, diff)
		}
	}
}
