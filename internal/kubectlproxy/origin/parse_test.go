package origin_test

import (
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/kubectlproxy/origin"
)

func TestParse(t *testing.T) {
	service := origin.Origin{Port: "80", Name: "web", Namespace: "shop"}
	tests := []struct {
		host string
		want origin.Origin
	}{
		{"80.web.shop.svc.localhost", service},
		{"80.web.shop.svc.localhost:8001", service},
		{"80.web.shop.svc.localhost.", service},
		{"80.web.shop.svc.localhost.:8001", service},
		{"80.WEB.Shop.SVC.LocalHost:8001", service},
		{"web.shop.svc.localhost", origin.Origin{Name: "web", Namespace: "shop"}},
		{"http.web.shop.svc.localhost", origin.Origin{Port: "http", Name: "web", Namespace: "shop"}},
		{"80.web.shop.svc.east-1.localhost", origin.Origin{Port: "80", Name: "web", Namespace: "shop", Label: "east-1"}},
		{"80.web.svc.svc.localhost", origin.Origin{Port: "80", Name: "web", Namespace: "svc"}},
		{"80.svc.svc.svc.east.localhost", origin.Origin{Port: "80", Name: "svc", Namespace: "svc", Label: "east"}},
		{"web.pod.svc.localhost", origin.Origin{Name: "web", Namespace: "pod"}},
		{"8080.web-0.shop.pod.localhost", origin.Origin{Pod: true, Port: "8080", Name: "web-0", Namespace: "shop"}},
		{"8080.a.b.c.shop.pod.localhost", origin.Origin{Pod: true, Port: "8080", Name: "a.b.c", Namespace: "shop"}},
		{"web-0.shop.pod.localhost", origin.Origin{Pod: true, Name: "web-0", Namespace: "shop"}},
		{"http.a.b.shop.pod.east.localhost:1", origin.Origin{Pod: true, Port: "http", Name: "a.b", Namespace: "shop", Label: "east"}},
	}
	for _, test := range tests {
		got, ok, err := origin.Parse(test.host)
		if !ok || err != nil {
			t.Errorf("Parse(%q): ok %v, error %v", test.host, ok, err)
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("Parse(%q) (-want +got):\n%s", test.host, diff)
		}
	}
}

func TestParseNotOurs(t *testing.T) {
	for _, host := range []string{
		"", "localhost", "localhost:8001", "127.0.0.1:8001", "[::1]:8001", "::1", "foo.localhost", "a.b.c.localhost",
		"80.web.shop.svc", "80.web.shop.svc.cluster.local", "80.web.shop.svc.localhost.example.com",
		"80.web.shop.svc.a.b.localhost", "80.web.shop.svc.notlocalhost", ".", ":", "localhost.",
	} {
		if o, ok, err := origin.Parse(host); ok || err != nil {
			t.Errorf("Parse(%q) = %v, ok %v, error %v, want not ours", host, o, ok, err)
		}
	}
}

func TestParseMalformed(t *testing.T) {
	for _, host := range []string{
		"svc.localhost", "web.svc.localhost", "pod.localhost", ".svc.localhost", "80.web.shop.more.svc.localhost",
		"80.web..svc.localhost", "80..shop.svc.localhost", ".web.shop.svc.localhost", "0.web.shop.svc.localhost",
		"080.web.shop.svc.localhost", "65536.web.shop.svc.localhost", "99999999999.web.shop.svc.localhost",
		"a_b.web.shop.svc.localhost", "80.web/../x.shop.svc.localhost", "80.web.sh%2fop.svc.localhost",
		"80.wéb.shop.svc.localhost", "80.-web.shop.svc.localhost", "80.web.shop.svc.-x.localhost",
		"80.web.shop.svc.localhost..", "80.web..shop.pod.localhost",
		"80." + strings.Repeat("a", 64) + ".shop.svc.localhost",
		"80." + strings.Repeat(strings.Repeat("a", 60)+".", 5) + "shop.pod.localhost",
	} {
		o, ok, err := origin.Parse(host)
		if host == "80.web.shop.svc.localhost.." { // one dot is the root's; two make an empty label, and no localhost at the end
			if ok {
				t.Errorf("Parse(%q) = %v, want not ours", host, o)
			}
			continue
		}
		if !ok || err == nil {
			t.Errorf("Parse(%q) = %v, ok %v, error %v, want ours and malformed", host, o, ok, err)
		}
	}
}

func FuzzParse(f *testing.F) {
	for _, host := range []string{
		"80.web.shop.svc.localhost:8001", "8080.a.b.c.shop.pod.east.localhost.", "web.shop.svc.localhost", "[::1]:80",
		"svc.localhost", "80.web.svc.svc.localhost", "a.pod.pod.pod.localhost", "..svc.localhost", "%2f.a.b.svc.localhost",
	} {
		f.Add(host)
	}
	f.Fuzz(func(t *testing.T, host string) {
		o, ok, err := origin.Parse(host)
		if !ok || err != nil {
			if o != (origin.Origin{}) {
				t.Fatalf("Parse(%q) = %v beside ok %v and error %v", host, o, ok, err)
			}
			return
		}
		if all := o.Port + o.Name + o.Namespace + o.Label; strings.ContainsAny(all, "/%?#:@\\ _") || all != strings.ToLower(all) {
			t.Fatalf("Parse(%q) let %+v through", host, o)
		}
		again, ok, err := origin.Parse(o.Host() + ":8001")
		if again != o || !ok || err != nil {
			t.Fatalf("Parse(%q) = %+v; its host %q reads as %+v, %v, %v", host, o, o.Host(), again, ok, err)
		}
	})
}
