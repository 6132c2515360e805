package discovery

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// FuzzDecode reads any file: what is taken from it can be served, and written and read again it is the same.
func FuzzDecode(f *testing.F) {
	for _, s := range []string{
		"", "null", "{}", `{"version":1}`, `{"version":1,"sources":{"kubernetes":["10.0.0.1:6443","[fd00::1]:6443"]}}`,
		`{"version":1,"sources":{"dns api:6443":["[::ffff:10.0.0.1]:6443",""]}}`, `{"version":2,"sources":[]}`,
		`{"version":1,"sources":{"kubernetes":["[fe80::1%eth0]:6443"],"kubernetes":null}}`,
	} {
		f.Add([]byte(s))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		known, err := decode(text)
		if err != nil {
			return
		}
		again, err := decode(encode(document{Version: cacheVersion, Sources: known}))
		if err != nil {
			t.Fatalf("%q, written: %v", text, err)
		}
		if len(known)+len(again) > 0 {
			if diff := cmp.Diff(known, again, cmp.Comparer(func(a, b netip.AddrPort) bool { return a == b })); diff != "" {
				t.Errorf("%q (-first +again)\n%s", text, diff)
			}
		}
		d := &Discovery{}
		for key, addrs := range known {
			out, _, err := d.clean(addrs)
			if len(addrs) > 0 && err != nil {
				t.Errorf("%q: %s has %v: %v", text, key, addrs, err)
			}
			for _, a := range out {
				if !sound(a) || a.Addr().Is4In6() || len(out) > MaxTargets {
					t.Errorf("%q: takes %v", text, out)
				}
			}
		}
	})
}
