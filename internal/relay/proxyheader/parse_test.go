package proxyheader_test

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"hash/crc32"
	"net"
	"net/netip"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"github.com/pires/go-proxyproto"

	"varco.dev/internal/relay/proxyheader"
)

const signature = "\r\n\r\n\x00\r\nQUIT\n"

// maxPayload is what may follow the signature, version, command, family and length.
const maxPayload = proxyheader.Max - 16

var (
	of4    = proxyheader.Header{Source: netip.MustParseAddrPort("192.0.2.1:56324"), Destination: netip.MustParseAddrPort("192.0.2.11:443")}
	of6    = proxyheader.Header{Source: netip.MustParseAddrPort("[2001:db8::1]:56324"), Destination: netip.MustParseAddrPort("[2001:db8::2]:443")}
	nobody = proxyheader.Header{Local: true}
)

// v2 is a header of version 2 with the right length.
func v2(command, family byte, payload string) string {
	b := append([]byte(signature), command, family)
	b = binary.BigEndian.AppendUint16(b, uint16(len(payload)))
	return string(b) + payload
}

// addresses are those that of4 has, or of6.
func addresses(is4 bool) string {
	if is4 {
		return "\xc0\x00\x02\x01\xc0\x00\x02\x0b\xdc\x04\x01\xbb"
	}
	b, _ := hex.DecodeString("20010db8000000000000000000000001" + "20010db8000000000000000000000002" + "dc0401bb")
	return string(b)
}

// extension is one of section 2.2.7.
func extension(kind byte, value string) string {
	b := binary.BigEndian.AppendUint16([]byte{kind}, uint16(len(value)))
	return string(b) + value
}

// summed puts the right checksum in the place of the four letters "SUM!".
func summed(header string) string {
	at := strings.Index(header, "SUM!")
	b := []byte(strings.Replace(header, "SUM!", "\x00\x00\x00\x00", 1))
	binary.BigEndian.PutUint32(b[at:], crc32.Checksum(b, crc32.MakeTable(crc32.Castagnoli)))
	return string(b)
}

// whole are headers that are right.
func whole() map[string]proxyheader.Header {
	checked := extension(0x01, "h2") + extension(0x03, "SUM!") + extension(0x04, "\x00\x00")
	return map[string]proxyheader.Header{
		"PROXY TCP4 192.0.2.1 192.0.2.11 56324 443\r\n":                                                            of4,
		"PROXY TCP4 255.255.255.255 255.255.255.255 65535 65535\r\n":                                               {Source: netip.MustParseAddrPort("255.255.255.255:65535"), Destination: netip.MustParseAddrPort("255.255.255.255:65535")},
		"PROXY TCP6 2001:db8::1 2001:db8::2 56324 443\r\n":                                                         of6,
		"PROXY TCP6 2001:0db8:0000:0000:0000:0000:0000:0001 2001:0db8:0000:0000:0000:0000:0000:0002 56324 443\r\n": of6,
		"PROXY TCP6 ::ffff:192.0.2.1 ::ffff:192.0.2.11 56324 443\r\n":                                              of4,
		"PROXY UNKNOWN\r\n": {Local: true},
		"PROXY UNKNOWN ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff 65535 65535\r\n": {Local: true},
		v2(0x21, 0x11, addresses(true)):  of4,
		v2(0x21, 0x21, addresses(false)): of6,
		v2(0x21, 0x21, strings.Repeat("\x00", 10)+"\xff\xff\xc0\x00\x02\x01"+strings.Repeat("\x00", 10)+"\xff\xff\xc0\x00\x02\x0b\xdc\x04\x01\xbb"): of4,
		v2(0x21, 0x11, addresses(true)+extension(0x02, "example.com")+extension(0xe0, "")):                                                          of4,
		v2(0x21, 0x11, addresses(true)+extension(0x30, strings.Repeat("x", maxPayload-15))):                                                         of4,
		summed(v2(0x21, 0x11, addresses(true)+checked)):                                                                                             of4,
		summed(v2(0x21, 0x21, addresses(false)+checked)):                                                                                            of6,
		v2(0x20, 0x00, ""):                      nobody,
		v2(0x20, 0x11, addresses(true)):         nobody,
		v2(0x20, 0x11, ""):                      nobody, // "must not assume zero", nor that the family tells the length
		v2(0x20, 0x31, "what"):                  nobody,
		v2(0x20, 0xff, "\x01\xff\xff"):          nobody,
		v2(0x21, 0x00, ""):                      nobody,
		v2(0x21, 0x00, extension(0x01, "h2")):   nobody,
		summed(v2(0x21, 0x00, checked)):         nobody,
		v2(0x20, 0x00, strings.Repeat("x", 99)): nobody,
		// Clients that are not of TCP: "falls back to the UNSPEC mode for the valid combinations".
		v2(0x21, 0x12, addresses(true)):                             nobody,
		v2(0x21, 0x22, addresses(false)+extension(0x01, "h2")):      nobody,
		v2(0x21, 0x31, "/run/client"+strings.Repeat("\x00", 205)):   nobody,
		summed(v2(0x21, 0x32, strings.Repeat("\x00", 216)+checked)): nobody,
	}
}

func equal(a, b proxyheader.Header) string {
	return cmp.Diff(a, b, cmpopts.EquateComparable(netip.AddrPort{}))
}

// TestWhole reads each header, alone and before other bytes, and finds no beginning of it whole.
func TestWhole(t *testing.T) {
	for text, want := range whole() {
		for _, after := range []string{"", "\x16\x03\x01", "\n", text} {
			got, n, err := proxyheader.Parse([]byte(text + after))
			if diff := equal(want, got); err != nil || n != len(text) || diff != "" {
				t.Errorf("%q: got length %d of %d, %v, (-want +got):\n%s", text, n, len(text), err, diff)
			}
		}
		for n := range len(text) {
			if _, _, err := proxyheader.Parse([]byte(text[:n])); !errors.Is(err, proxyheader.ErrIncomplete) {
				t.Fatalf("the first %d bytes of %q: got %v", n, text, err)
			}
		}
	}
}

func TestRefused(t *testing.T) {
	certificate := strings.Repeat("x", maxPayload)
	for text, want := range map[string]string{
		"\x16\x03\x01\x02":                                                  "there is no PROXY protocol header",
		"GET / HTTP/1.1\r\n":                                                "there is no PROXY protocol header",
		"PRI * HTTP/2.0\r\n":                                                "there is no PROXY protocol header",
		"PROXYTCP4":                                                         "there is no PROXY protocol header",
		"\r\n\r\n\x00\r\nQUIZ":                                              "there is no PROXY protocol header",
		"PROXY TCP4 192.0.2.1 192.0.2.11 1 2\n":                             "must end with",
		"PROXY " + strings.Repeat("x", 101):                                 "no end of line within 107 bytes",
		"PROXY UNKNOWN" + strings.Repeat("x", 93) + "\r\n":                  "no end of line within 107 bytes",
		"PROXY \r\n":                                                        "address family or protocol",
		"PROXY UDP4 192.0.2.1 192.0.2.11 1 2\r\n":                           "address family or protocol",
		"PROXY TCP4 192.0.2.1 192.0.2.11 1\r\n":                             "address family or protocol",
		"PROXY TCP4 192.0.2.1 192.0.2.11 1 2 3\r\n":                         "address family or protocol",
		"PROXY TCP4  192.0.2.1 192.0.2.11 1 2\r\n":                          "address family or protocol",
		"PROXY TCP4 192.0.2.1 192.0.2.11 01 2\r\n":                          "invalid port number",
		"PROXY TCP4 192.0.2.1 192.0.2.11 65536 2\r\n":                       "invalid port number",
		"PROXY TCP4 192.0.2.01 192.0.2.11 1 2\r\n":                          "invalid address",
		"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n":                        "invalid address",
		"PROXY TCP6 192.0.2.1 192.0.2.11 1 2\r\n":                           "invalid address",
		"PROXY TCP6 fe80::1%lo fe80::2 1 2\r\n":                             "invalid address",
		signature + "\x11":                                                  "version 1 is not 1 or 2",
		signature + "\x31":                                                  "version 3 is not 1 or 2",
		signature + "\x22":                                                  "command 2 is neither LOCAL nor PROXY",
		signature + "\x21\x13":                                              "0x13 is no family and protocol",
		signature + "\x21\x41":                                              "0x41 is no family and protocol",
		signature + "\x21\x11\x00\x0b":                                      "a length of 11 is not within 12 to 4096",
		signature + "\x21\x10":                                              "0x10 is no family and protocol",
		signature + "\x21\x01":                                              "0x01 is no family and protocol",
		signature + "\x21\x32\x00\xd7":                                      "a length of 215 is not within 216 to 4096",
		signature + "\x21\x21\x00\x23":                                      "a length of 35 is not within 36 to 4096",
		signature + "\x20\x00\x10\x01":                                      "a length of 4097 is not within 0 to 4096",
		signature + "\x21\x11\xff\xff":                                      "a length of 65535 is not within 12 to 4096",
		v2(0x21, 0x11, addresses(true)+"\x01\x00"):                          "its last extension is cut off",
		v2(0x21, 0x11, addresses(true)+"\x01\x00\x03h2"):                    "an extension is longer than the header",
		v2(0x21, 0x00, "\x01\x00\x03h2"):                                    "an extension is longer than the header",
		v2(0x21, 0x11, addresses(true)+extension(0x03, "SUM!")):             "its checksum is wrong",
		v2(0x21, 0x00, extension(0x03, "SUM!")):                             "its checksum is wrong",
		v2(0x21, 0x31, strings.Repeat("x", 216)+extension(0x03, "SUM!")):    "its checksum is wrong",
		v2(0x21, 0x11, addresses(true)+extension(0x03, "four+")):            "a checksum of another size",
		v2(0x21, 0x11, addresses(true)+extension(0x30, certificate[:4082])): "a length of 4097",
	} {
		h, n, err := proxyheader.Parse([]byte(text))
		if err == nil || !strings.Contains(err.Error(), want) || errors.Is(err, proxyheader.ErrIncomplete) {
			t.Errorf("%.60q: got %+v, %d, %v, want %q", text, h, n, err, want)
		}
	}
}

func TestTwoChecksums(t *testing.T) {
	one := extension(0x03, "SUM!")
	text := summed(v2(0x21, 0x11, addresses(true)+one+extension(0x03, "\x00\x00\x00\x00")))
	if _, _, err := proxyheader.Parse([]byte(text)); err == nil || !strings.Contains(err.Error(), "or two") {
		t.Errorf("got %v", err)
	}
}

// TestLibraryFormats reads what the library writes.
func TestLibraryFormats(t *testing.T) {
	for _, version := range []byte{1, 2} {
		for _, c := range []struct{ source, destination string }{
			{"192.0.2.1:1", "192.0.2.2:65535"},
			{"[2001:db8::1]:1", "[2001:db8::2]:65535"},
			{"192.0.2.1:1", "[2001:db8::2]:65535"},
		} {
			from, to := netip.MustParseAddrPort(c.source), netip.MustParseAddrPort(c.destination)
			h := proxyproto.HeaderProxyFromAddrs(version, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to))
			b, err := h.Format()
			if err != nil {
				t.Fatal(err)
			}
			got, n, err := proxyheader.Parse(b)
			want := proxyheader.Header{Source: from, Destination: to}
			if diff := equal(want, got); err != nil || n != len(b) || diff != "" {
				t.Errorf("%q: got length %d, %v, (-want +got):\n%s", b, n, err, diff)
			}
		}
	}
}

// TestAppend writes what the library writes.
func TestAppend(t *testing.T) {
	for _, c := range []struct {
		source, destination string
		size                int
	}{
		{"192.0.2.1:1", "192.0.2.2:65535", 28},
		{"[::ffff:192.0.2.1]:1", "192.0.2.2:65535", 28},
		{"[2001:db8::1]:1", "[2001:db8::2]:65535", 52},
		{"[fe80::1%eth0]:1", "[fe80::2%eth0]:65535", 52},
		{"192.0.2.1:1", "[2001:db8::2]:65535", 52},
	} {
		from, to := netip.MustParseAddrPort(c.source), netip.MustParseAddrPort(c.destination)
		want, err := proxyproto.HeaderProxyFromAddrs(2, net.TCPAddrFromAddrPort(from), net.TCPAddrFromAddrPort(to)).Format()
		if err != nil {
			t.Fatal(err)
		}
		got := proxyheader.Append([]byte("before"), from, to)
		if string(got) != "before"+string(want) || len(want) != c.size {
			t.Errorf("%+v: got\n%x, want\n%x", c, got, want)
		}
	}
	for _, got := range [][]byte{
		proxyheader.Append(nil, netip.AddrPort{}, of4.Destination), proxyheader.Append(nil, of4.Source, netip.AddrPort{}),
	} {
		if h, n, err := proxyheader.Parse(got); err != nil || n != 16 || !h.Local {
			t.Errorf("%x: got %+v, %d, %v", got, h, n, err)
		}
	}
}

// TestAppendAllocatesNothing where the slice has room: the relay writes a header for each connection.
func TestAppendAllocatesNothing(t *testing.T) {
	b := make([]byte, 0, 52)
	if n := testing.AllocsPerRun(100, func() { b = proxyheader.Append(b[:0], of6.Source, of6.Destination) }); n != 0 {
		t.Errorf("got %v allocations", n)
	}
}

func FuzzParse(f *testing.F) {
	for text := range whole() {
		f.Add([]byte(text))
		f.Add([]byte(text + "\x16\x03\x01"))
	}
	f.Add([]byte("PROXY TCP4 1.1.1.1"))
	f.Add([]byte("\x16\x03\x01"))
	f.Fuzz(func(t *testing.T, b []byte) {
		before := bytes.Clone(b)
		h, n, err := proxyheader.Parse(b[:len(b):len(b)])
		if !bytes.Equal(b, before) {
			t.Fatal("the bytes were changed")
		}
		if errors.Is(err, proxyheader.ErrIncomplete) {
			if len(b) >= proxyheader.Max {
				t.Fatalf("asks for more than %d bytes", len(b))
			}
			return
		}
		if err != nil {
			return
		}
		checkWhole(t, b, h, n)
	})
}

// checkWhole checks what is true for every header.
func checkWhole(t *testing.T, b []byte, h proxyheader.Header, n int) {
	if n < 1 || n > len(b) || n > proxyheader.Max {
		t.Fatalf("length %d of %d", n, len(b))
	}
	for i := range n {
		if _, _, err := proxyheader.Parse(b[:i]); !errors.Is(err, proxyheader.ErrIncomplete) {
			t.Fatalf("the first %d of %d bytes: got %v", i, n, err)
		}
	}
	if h.Local != !h.Source.IsValid() || h.Local != !h.Destination.IsValid() {
		t.Fatalf("got %+v", h)
	}
	if h.Source.Addr().Is4In6() || h.Destination.Addr().Is4In6() || h.Source.Addr().Zone() != "" {
		t.Fatalf("got %+v", h)
	}
	again, _, err := proxyheader.Parse(proxyheader.Append(nil, h.Source, h.Destination))
	if err != nil || again != h {
		t.Fatalf("wrote %+v and read %+v, %v", h, again, err)
	}
}

func BenchmarkParse(b *testing.B) {
	header := []byte(v2(0x21, 0x11, addresses(true)))
	b.ReportAllocs()
	for b.Loop() {
		if _, _, err := proxyheader.Parse(header); err != nil {
			b.Fatal(err)
		}
	}
}
