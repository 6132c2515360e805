package balance_test

import (
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/apiserverproxy/balance"
	"varco.dev/internal/apiserverproxy/locate"
)

// visit sends a request of a client, with a cookie if it has one, and returns who has answered and the cookie to be set.
func (w *world) visit(t testing.TB, client string, cookie *http.Cookie) (string, *http.Cookie) {
	t.Helper()
	r := httptest.NewRequest("GET", "/", nil)
	if cookie != nil {
		r.AddCookie(cookie)
	}
	var from netip.Addr
	if client != "" {
		from = netip.MustParseAddr(client)
	}
	x := w.balancer.Exchange(r, from, w.to)
	resp, _, err := do(x.RoundTripper(), r)
	if err != nil {
		t.Fatal(err)
	}
	return resp.Request.URL.Host, x.Cookie("/api/v1/namespaces/default/services/web/proxy")
}

func TestClientAffinity(t *testing.T) {
	a, _ := good(t)
	b, _ := good(t)
	dead := refusing(t)
	w, replica := newWorld(t, a, b, dead), newWorld(t, dead, b, a)
	w.to.Affinity, replica.to.Affinity = time.Hour, time.Hour
	at := map[string]bool{}
	for _, client := range []string{"192.0.2.1", "192.0.2.2", "192.0.2.3", "192.0.2.4", "2001:db8::1", "2001:db8::2", "192.0.2.7", "192.0.2.8"} {
		first, _ := w.visit(t, client, nil)
		at[first] = true
		for range 5 {
			if again, _ := w.visit(t, client, nil); again != first {
				t.Errorf("%s went to %s, and then to %s", client, first, again)
			}
		}
		if there, _ := replica.visit(t, client, nil); there != first {
			t.Errorf("%s goes to %s, by another replica to %s", client, first, there)
		}
	}
	if len(at) != 2 {
		t.Errorf("all clients went to %v", at)
	}
}

func TestCookieAffinity(t *testing.T) {
	a, _ := good(t)
	b, _ := good(t)
	c, _ := good(t)
	w, replica := newWorld(t, a, b, c), newWorld(t, c, b, a)
	w.to.Cookie, replica.to.Cookie = true, true
	home, cookie := w.visit(t, "", nil)
	if cookie == nil || !cookie.HttpOnly || cookie.SameSite != http.SameSiteLaxMode || cookie.Secure ||
		cookie.Path != "/api/v1/namespaces/default/services/web/proxy" || cookie.Name != balance.CookieName {
		t.Fatalf("got the cookie %v", cookie)
	}
	if host, _, _ := strings.Cut(home, ":"); strings.Contains(cookie.Value, host) || len(cookie.Value) != 22 {
		t.Errorf("the cookie %q is not opaque", cookie.Value)
	}
	for range 20 {
		at, next := w.visit(t, "", cookie)
		there, _ := replica.visit(t, "", cookie)
		if at != home || there != home || next != nil {
			t.Fatalf("went to %s and %s instead of %s, with the new cookie %v", at, there, home, next)
		}
	}
	forged := *cookie
	forged.Value = "x"
	if _, next := w.visit(t, "", &forged); next == nil {
		t.Error("an unknown cookie is not replaced")
	}
	other := newWorld(t, a, b, c)
	other.to.Cookie, other.to.Key = true, "service/default/web:80/made-again"
	if _, next := other.visit(t, "", cookie); next == nil || next.Value == cookie.Value {
		t.Error("a cookie of one Service is known to another")
	}
	var left []netip.AddrPort
	for _, e := range []netip.AddrPort{a, b, c} {
		if e.String() != home {
			left = append(left, e)
		}
	}
	w.to = destination(left...)
	w.to.Cookie = true
	at, next := w.visit(t, "", cookie)
	if at == home || next == nil || next.Value == cookie.Value {
		t.Errorf("its endpoint is gone: went to %s, with the cookie %v", at, next)
	}
	if _, again := w.visit(t, "", next); again != nil {
		t.Error("the new cookie is not taken")
	}
	w.to = destination(left[0])
	w.to.Cookie = true
	if _, alone := w.visit(t, "", nil); alone == nil {
		t.Error("the only endpoint gives no cookie, so that clients leave it when there is another")
	}
}

// TestCookieOfFailed has the endpoint of a cookie refuse connections.
func TestCookieOfFailed(t *testing.T) {
	fine, _ := good(t)
	dead := refusing(t)
	w := newWorld(t, fine, dead)
	w.to.Cookie = true
	_, good := w.visit(t, "", nil)
	only := newWorld(t, dead, fine)
	only.to.Cookie = true
	if at, next := only.visit(t, "", good); at != fine.String() || next != nil {
		t.Errorf("went to %s with the new cookie %v", at, next)
	}
}

func TestZoneHints(t *testing.T) {
	a, _ := good(t)
	b, _ := good(t)
	tests := []struct {
		name     string
		endpoint []locate.Endpoint
		zone     string
		want     map[string]bool
	}{
		{"one is for our zone", []locate.Endpoint{{Addr: a, ForZones: []string{"z1"}}, {Addr: b, ForZones: []string{"z2"}}}, "z2", map[string]bool{b.String(): true}},
		{"none is", []locate.Endpoint{{Addr: a, ForZones: []string{"z1"}}, {Addr: b, ForZones: []string{"z2"}}}, "z3", map[string]bool{a.String(): true, b.String(): true}},
		{"one has no hints", []locate.Endpoint{{Addr: a}, {Addr: b, ForZones: []string{"z2"}}}, "z2", map[string]bool{a.String(): true, b.String(): true}},
		{"our zone is not known", []locate.Endpoint{{Addr: a, ForZones: []string{"z1"}}, {Addr: b, ForZones: []string{"z2"}}}, "", map[string]bool{a.String(): true, b.String(): true}},
		{"draining", []locate.Endpoint{{Addr: a, Draining: true}, {Addr: b}}, "", map[string]bool{b.String(): true}},
	}
	for _, test := range tests {
		tr := transport(t)
		w := newWorldOf(balance.Config{Transports: transports{tr, tr}, Zone: test.zone})
		w.to.Endpoints = test.endpoint
		got := map[string]bool{}
		for range 30 {
			at, _ := w.visit(t, "", nil)
			got[at] = true
		}
		if diff := cmp.Diff(test.want, got); diff != "" {
			t.Errorf("%s: %s", test.name, diff)
		}
	}
}

func TestStripCookie(t *testing.T) {
	tests := []struct{ in, want []string }{
		{nil, nil},
		{[]string{"a=b"}, []string{"a=b"}},
		{[]string{"varco-backend=x"}, nil},
		{[]string{"a=b; varco-backend=x; c=d"}, []string{"a=b; c=d"}},
		{[]string{"varco-backend=x; a=b"}, []string{"a=b"}},
		{[]string{"a=b", "varco-backend=x", "c=\"varco-backend=y\""}, []string{"a=b", "c=\"varco-backend=y\""}},
		{[]string{"not-varco-backend=x;varco-backend"}, []string{"not-varco-backend=x"}},
		{[]string{"a=b;  varco-backend = x"}, []string{"a=b"}},
	}
	for _, test := range tests {
		h := http.Header{"Cookie": test.in}
		kept := append([]string(nil), test.in...)
		balance.StripCookie(h)
		if diff := cmp.Diff(test.want, h["Cookie"]); diff != "" {
			t.Errorf("%q: %s", test.in, diff)
		}
		if diff := cmp.Diff(kept, test.in); diff != "" {
			t.Errorf("%q: the slice was changed: %s", test.in, diff)
		}
	}
}
