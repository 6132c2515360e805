package outbound_test

import (
	"net/netip"
	"testing"

	"varco.dev/internal/apiserverproxy/outbound"
)

// TestRefused is a corpus of addresses that lead where clients must not get, in all the ways to write them, and of those
// beside them, which must be left alone.
func TestRefused(t *testing.T) {
	const ok = outbound.Reason("")
	tests := []struct {
		addr string
		want outbound.Reason
	}{
		// What clusters are made of.
		{"10.0.0.1", ok}, {"172.16.0.1", ok}, {"192.168.255.254", ok}, {"100.64.0.1", ok}, {"100.100.100.199", ok}, {"192.0.2.1", ok},
		{"198.18.0.1", ok}, {"8.8.8.8", ok}, {"fd00::1", ok}, {"fd12:3456::1", ok}, {"2001:db8::1", ok}, {"2a00::1", ok}, {"fec0::1", ok},
		{"1.0.0.0", ok}, {"126.255.255.255", ok}, {"128.0.0.0", ok}, {"169.253.255.255", ok}, {"169.255.0.0", ok}, {"223.255.255.255", ok},

		// IPv4 as it is.
		{"0.0.0.0", outbound.Unspecified}, {"0.0.0.1", outbound.Unspecified}, {"0.255.255.255", outbound.Unspecified},
		{"127.0.0.1", outbound.Loopback}, {"127.0.0.53", outbound.Loopback}, {"127.255.255.255", outbound.Loopback},
		{"169.254.0.0", outbound.LinkLocal}, {"169.254.20.10", outbound.LinkLocal}, {"169.254.255.255", outbound.LinkLocal},
		{"169.254.169.254", outbound.Metadata}, {"169.254.170.2", outbound.Metadata}, {"169.254.170.23", outbound.Metadata},
		{"169.254.42.42", outbound.Metadata}, {"100.100.100.200", outbound.Metadata}, {"192.0.0.192", outbound.Metadata},
		{"168.63.129.16", outbound.Metadata}, {"168.63.129.17", ok},
		{"224.0.0.1", outbound.Multicast}, {"239.255.255.255", outbound.Multicast},
		{"240.0.0.0", outbound.Reserved}, {"255.255.255.254", outbound.Reserved}, {"255.255.255.255", outbound.Broadcast},

		// IPv6 as it is.
		{"::", outbound.Unspecified}, {"::1", outbound.Loopback}, {"0:0:0:0:0:0:0:1", outbound.Loopback},
		{"fe80::1", outbound.LinkLocal}, {"febf:ffff::1", outbound.LinkLocal}, {"fe7f::1", ok}, {"fe80::a9fe:a9fe", outbound.Metadata},
		{"ff02::1", outbound.Multicast}, {"ff0e::1", outbound.Multicast}, {"fe80::1%eth0", outbound.Zoned}, {"2001:db8::1%eth0", outbound.Zoned},
		{"fd00:ec2::254", outbound.Metadata}, {"fd00:ec2::23", outbound.Metadata}, {"fd00:ec2:0:1::1", outbound.Metadata}, {"fd00:ec3::254", ok},
		{"fd20:ce::254", outbound.Metadata}, {"fd20:ce::253", ok}, {"fd00:c1::a9fe:a9fe", outbound.Metadata}, {"fd00:42::42", outbound.Metadata},
		{"fd00:a9fe:a9fe::1", outbound.Metadata},

		// IPv4 inside: mapped, compatible, translated.
		{"::ffff:127.0.0.1", outbound.Loopback}, {"::ffff:7f00:1", outbound.Loopback}, {"::ffff:0.0.0.0", outbound.Unspecified},
		{"::ffff:169.254.169.254", outbound.Metadata}, {"::ffff:a9fe:a9fe", outbound.Metadata}, {"::ffff:6464:64c8", outbound.Metadata},
		{"::ffff:10.0.0.1", ok}, {"::ffff:255.255.255.255", outbound.Broadcast},
		{"::127.0.0.1", outbound.Loopback}, {"::7f00:1", outbound.Loopback}, {"::a9fe:a9fe", outbound.Metadata}, {"::2", outbound.Unspecified},
		{"::10.0.0.1", ok},
		{"::ffff:0:127.0.0.1", outbound.Loopback}, {"::ffff:0:a9fe:a9fe", outbound.Metadata}, {"::ffff:0:10.0.0.1", ok},

		// NAT64, everywhere and of a site, by each length of its prefix.
		{"64:ff9b::127.0.0.1", outbound.Loopback}, {"64:ff9b::a9fe:a9fe", outbound.Metadata}, {"64:ff9b::8.8.8.8", ok}, {"64:ff9b::", outbound.Unspecified},
		{"64:ff9b:1::127.0.0.1", outbound.Loopback}, {"64:ff9b:1:abcd:0:ef:a9fe:a9fe", outbound.Metadata}, {"64:ff9b:1::8.8.8.8", ok},
		{"64:ff9b:1:a9fe:00a9:fe00:0808:0808", outbound.Metadata}, // /48
		{"64:ff9b:1:11a9:00fe:a9fe:0808:0808", outbound.Metadata}, // /56
		{"64:ff9b:1:1111:007f:0000:0108:0808", outbound.Loopback}, // /64
		{"64:ff9b:1:0808:0008:0800:0808:0808", ok},

		// Tunnels.
		{"2002:7f00:1::", outbound.Loopback}, {"2002:7f00:0001::1", outbound.Loopback}, {"2002:a9fe:a9fe::a9fe:a9fe", outbound.Metadata},
		{"2002:0a00:0001::1", ok},
		{"2001:0:0808:0808:0:0:80ff:fffe", outbound.Loopback}, // Teredo: 127.0.0.1, inverted
		{"2001:0:0808:0808:0:0:5601:5601", outbound.Metadata}, // 169.254.169.254
		{"2001:0:7f00:0001:0:0:f7f7:f7f7", outbound.Loopback}, // the server
		{"2001:0:0808:0808:0:0:f7f7:f7f7", ok}, {"2001:1::7f00:1", ok},
		{"2001:db8::5efe:127.0.0.1", outbound.Loopback}, {"2001:db8::200:5efe:a9fe:a9fe", outbound.Metadata}, // ISATAP
		{"2001:db8::5efe:10.0.0.1", ok}, {"2001:db8::5eff:127.0.0.1", ok},
	}
	for _, tt := range tests {
		if got := outbound.Refused(netip.MustParseAddr(tt.addr)); got != tt.want {
			t.Errorf("%s: got %q, want %q", tt.addr, got, tt.want)
		}
	}
	if got := outbound.Refused(netip.Addr{}); got != outbound.Malformed {
		t.Errorf("no address: got %q", got)
	}
}

// FuzzRefused compares with what netip knows, and with what upstream asks of an address.
func FuzzRefused(f *testing.F) {
	for _, s := range []string{"127.0.0.1", "10.0.0.1", "::1", "::ffff:127.0.0.1", "64:ff9b::7f00:1", "2002:7f00:1::", "fe80::1", "2001:db8::1"} {
		a := netip.MustParseAddr(s)
		f.Add(a.AsSlice())
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		a, ok := netip.AddrFromSlice(b)
		if !ok {
			return
		}
		plain := a.Unmap()
		got := outbound.Refused(a)
		if got != outbound.Refused(plain) {
			t.Errorf("%s: %q, as IPv4 %q", a, got, outbound.Refused(plain))
		}
		if a.IsUnspecified() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || !plain.IsGlobalUnicast() {
			if got == "" {
				t.Errorf("%s is let pass", a)
			}
		}
		if plain.Is4() && got == "" {
			for _, around := range around(plain) {
				if outbound.Refused(around) != "" {
					t.Errorf("%s is refused, and %s inside is not", around, plain)
				}
			}
		}
		if plain.Is4() && got != "" {
			for _, around := range around(plain) {
				if outbound.Refused(around) == "" {
					t.Errorf("%s is let pass, and %s inside is not", around, plain)
				}
			}
		}
		if a.Is6() && !a.Is4In6() && outbound.Refused(a.WithZone("eth0")) == "" {
			t.Errorf("%s is let pass with a zone", a)
		}
	})
}

// around returns IPv6 addresses that lead to an IPv4 address.
func around(a netip.Addr) (out []netip.Addr) {
	b := a.As4()
	for _, prefix := range []string{"::ffff:0:0", "::ffff:0:0:0", "64:ff9b::", "64:ff9b:1:808:8:800::", "2001:db8::5efe:0:0"} {
		wide := netip.MustParseAddr(prefix).As16()
		copy(wide[12:], b[:])
		out = append(out, netip.AddrFrom16(wide))
	}
	sixToFour := netip.MustParseAddr("2002::1").As16()
	copy(sixToFour[2:], b[:])
	teredo := netip.MustParseAddr("2001:0:808:808::").As16()
	for i := range b {
		teredo[12+i] = b[i] ^ 0xff
	}
	return append(out, netip.AddrFrom16(sixToFour), netip.AddrFrom16(teredo))
}
