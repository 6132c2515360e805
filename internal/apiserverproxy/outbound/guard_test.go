package outbound_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus/testutil"

	"varco.dev/internal/apiserverproxy/outbound"
	"varco.dev/internal/nettest"
)

// lanes are all ways of an Outbound to a target.
func lanes(o *outbound.Outbound) map[string]http.RoundTripper {
	all := map[string]http.RoundTripper{}
	for _, p := range []outbound.Profile{{Scheme: "http"}, {Scheme: "https"}, {Scheme: "h2c"}, {Scheme: "https", Kubelet: true}} {
		name := fmt.Sprint(p.Scheme, " kubelet=", p.Kubelet)
		all[name], all[name+" upgrade"] = o.RoundTripper(p), o.Upgrade(p)
	}
	return all
}

// far is an egress that notes what it is asked for, and leads to one server whatever that is.
type far struct {
	to    string
	mu    sync.Mutex // guards asked
	asked []string
}

func (f *far) dial(ctx context.Context, network, address string) (net.Conn, error) {
	f.mu.Lock()
	f.asked = append(f.asked, network+" "+address)
	f.mu.Unlock()
	return new(net.Dialer).DialContext(ctx, "tcp", f.to)
}

func (f *far) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	asked := f.asked
	f.asked = nil
	return asked
}

// strict makes an Outbound as it is in production.
func strict(t *testing.T, config outbound.Config) *outbound.Outbound {
	t.Helper()
	o, err := outbound.New(config)
	if err != nil {
		t.Fatal(err)
	}
	run(t, o)
	return o
}

// TestGuard asks for addresses that are refused on every lane, directly and through an egress: CVE-2020-8555 (targets
// that are the control plane's own host), CVE-2022-3294 (kubelet's addresses were not looked at). Nobody hears of it but
// the client.
func TestGuard(t *testing.T) {
	server := newTarget(t, describe, plain)
	port := server.Listener.Addr().(*net.TCPAddr).Port
	dns, resolver := newNames(t)
	dns.set("node.test", "127.0.0.1")
	dns.set("six.test", "::1")
	dns.set("nat64.test", "64:ff9b::7f00:1")
	dns.set("meta.test", "169.254.169.254")
	dns.set("own.test", "192.0.2.1")
	base := outbound.Config{
		Resolver: resolver,
		Deny:     []netip.Prefix{netip.MustParsePrefix("198.51.100.7/24"), netip.MustParsePrefix("::ffff:203.0.113.0/120")},
		Own: func() []netip.AddrPort {
			return []netip.AddrPort{netip.AddrPortFrom(netip.MustParseAddr("192.0.2.1"), uint16(port))}
		},
	}
	through := base
	f := &far{to: server.Listener.Addr().String()}
	through.Egress = f.dial
	tests := map[string]outbound.Reason{
		"127.0.0.1": outbound.Loopback, "[::1]": outbound.Loopback, "0.0.0.0": outbound.Unspecified, "[::]": outbound.Unspecified,
		"[::ffff:127.0.0.1]": outbound.Loopback, "169.254.169.254": outbound.Metadata, "[fe80::1%25lo]": outbound.Zoned,
		"node.test": outbound.Loopback, "six.test": outbound.Loopback, "nat64.test": outbound.Loopback, "meta.test": outbound.Metadata,
		"192.0.2.1": outbound.Own, "[::ffff:192.0.2.1]": outbound.Own, "[64:ff9b::c000:201]": outbound.Own, "own.test": outbound.Own,
		"198.51.100.9": outbound.Denied, "203.0.113.5": outbound.Denied, "[2002:cb00:7105::1]": outbound.Denied,
	}
	for way, config := range map[string]outbound.Config{"direct": base, "egress": through} {
		own := strict(t, config)
		config.Own = nil // it would have kubelets refused by the port alone
		o := strict(t, config)
		for host, want := range tests {
			in := lanes(o)
			if want == outbound.Own {
				in = lanes(own)
			}
			for lane, rt := range in {
				want := want
				if want == outbound.Own && strings.Contains(lane, "kubelet=true") {
					want = outbound.NoKubelet
				}
				t.Run(way+" "+host+" "+lane, func(t *testing.T) {
					r := request(t, "GET", fmt.Sprintf("http://%s:%d/", host, port), "")
					resp, err := (&http.Client{Transport: rt}).Do(r)
					if err == nil {
						resp.Body.Close()
						t.Fatal("answered")
					}
					var refused *outbound.RefusedError
					if !errors.As(err, &refused) || !strings.HasSuffix(refused.Address, fmt.Sprint(":", port)) {
						t.Fatalf("got %v, want it refused", err)
					}
					if wantWhy := want.Sentence(); refused.Why != wantWhy {
						t.Errorf("%s %s, want it to say %s", refused.Address, refused.Why, wantWhy)
					}
				})
			}
		}
	}
	if all, _ := server.connections(); all != 0 || len(f.take()) != 0 {
		t.Errorf("%d connections were made", all)
	}
}

// TestRebinding resolves a name, as upstream does to look at its addresses, and then sends a request to it. The name's
// address is another one by then (CVE-2020-8562).
func TestRebinding(t *testing.T) {
	server := newTarget(t, describe, plain)
	_, port, _ := net.SplitHostPort(server.Listener.Addr().String())
	dns, resolver := newNames(t)
	f := &far{to: server.Listener.Addr().String()}
	for way, config := range map[string]outbound.Config{
		"direct": {Resolver: resolver},
		"egress": {Resolver: resolver, Egress: f.dial},
	} {
		t.Run(way, func(t *testing.T) {
			o := strict(t, config)
			dns.set("node.test", "192.0.2.1")
			addrs, err := resolver.LookupNetIP(t.Context(), "ip", "node.test")
			if err != nil || len(addrs) != 1 || outbound.Refused(addrs[0]) != "" {
				t.Fatalf("the first answer: %v, %v", addrs, err)
			}
			dns.set("node.test", "127.0.0.1")
			_, err = send(o.RoundTripper(outbound.Profile{Scheme: "http"}), request(t, "GET", "http://node.test:"+port, ""))
			var refused *outbound.RefusedError
			if !errors.As(err, &refused) || refused.Address != "127.0.0.1:"+port {
				t.Errorf("got %v, want it refused", err)
			}
		})
	}
	if all, _ := server.connections(); all != 0 || len(f.take()) != 0 {
		t.Errorf("%d connections were made", all)
	}
}

// TestEgressNames has an egress that resolves nothing: it gets the addresses that were looked at, one after the other.
func TestEgressNames(t *testing.T) {
	server := newTarget(t, describe, plain)
	dns, resolver := newNames(t)
	dns.set("node.test", "127.0.0.1", "192.0.2.1")
	f := &far{to: server.Listener.Addr().String()}
	o := strict(t, outbound.Config{Resolver: resolver, Egress: f.dial})
	got, err := send(o.RoundTripper(outbound.Profile{Scheme: "http"}), request(t, "GET", "http://node.test:10250/x", ""))
	if err != nil || got != "HTTP/1.1 GET /x " {
		t.Errorf("got %q, %v", got, err)
	}
	if d := cmp.Diff([]string{"tcp 192.0.2.1:10250"}, f.take()); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if _, err := send(o.RoundTripper(outbound.Profile{Scheme: "http"}), request(t, "GET", "http://other.test:10250/x", "")); err == nil || len(f.take()) != 0 {
		t.Errorf("a name without an address: %v", err)
	}
}

// TestTrickyLiterals writes loopback's address in ways that some resolver or library takes for it.
func TestTrickyLiterals(t *testing.T) {
	server := newTarget(t, describe, plain)
	port := server.Listener.Addr().(*net.TCPAddr).Port
	_, resolver := newNames(t)
	f := &far{to: server.Listener.Addr().String()}
	for way, config := range map[string]outbound.Config{"direct": {Resolver: resolver}, "egress": {Resolver: resolver, Egress: f.dial}} {
		o := strict(t, config)
		for _, host := range []string{
			"", "0", "127.1", "127.0.1", "2130706433", "0x7f000001", "0x7f.1", "017700000001", "0177.0.0.1", "127.0.0.01", "127.0.0.1.",
			"localhost", "LOCALHOST", "localhost.", "①②⑦.⓪.⓪.①", "127。0。0。1", "[::1%25lo]", "[::1%251]", "[::ffff:7f00:1]", "[::7f00:1]",
			"[0:0:0:0:0:ffff:127.0.0.1]", "[::ffff:127.0.0.1%25lo]", "127.0.0.1%00.test", "127.0.0.1:80@node.test", "node.test#@127.0.0.1",
			"[::ffff:0.0.0.0]", "%31%32%37.0.0.1",
		} {
			r := request(t, "GET", "http://placeholder/", "")
			r.URL.Host = host
			if !strings.HasSuffix(host, ":80") {
				r.URL.Host = fmt.Sprint(host, ":", port)
			}
			for lane, rt := range lanes(o) {
				if got, err := send(rt, r.Clone(t.Context())); err == nil {
					t.Errorf("%s %q %s: answered %q", way, host, lane, got)
				}
			}
		}
	}
	if all, _ := server.connections(); all != 0 || len(f.take()) != 0 {
		t.Errorf("%d connections were made, %q asked for", all, f.take())
	}
}

// TestOwnHost names a listener on all addresses: each of the host's own is refused then, at that port.
func TestOwnHost(t *testing.T) {
	addrs, err := net.InterfaceAddrs()
	if err != nil {
		t.Fatal(err)
	}
	f := &far{to: newTarget(t, describe, plain).Listener.Addr().String()}
	o := strict(t, outbound.Config{Egress: f.dial, Own: func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("[::]:6443")} }})
	rt := o.RoundTripper(outbound.Profile{Scheme: "http"})
	for _, a := range addrs {
		host, _, _ := strings.Cut(a.String(), "/")
		if addr := netip.MustParseAddr(host); outbound.Refused(addr) == "" {
			var refused *outbound.RefusedError
			if _, err := send(rt, request(t, "GET", "http://"+netip.AddrPortFrom(addr, 6443).String(), "")); !errors.As(err, &refused) {
				t.Errorf("%s: got %v, want it refused", a, err)
			}
			if _, err := send(rt, request(t, "GET", "http://"+netip.AddrPortFrom(addr, 6444).String(), "")); err != nil {
				t.Errorf("%s at another port: %v", a, err)
			}
		}
	}
	if _, err := send(rt, request(t, "GET", "http://192.0.2.99:6443", "")); err != nil {
		t.Errorf("another host: %v", err)
	}
}

// TestRefusalsAreSeen looks at the log and the metrics.
func TestRefusalsAreSeen(t *testing.T) {
	journal := &nettest.Journal{}
	o := strict(t, outbound.Config{Log: slog.New(slog.NewTextHandler(journal, &slog.HandlerOptions{Level: slog.LevelDebug}))})
	_, err := send(o.RoundTripper(outbound.Profile{Scheme: "http"}), request(t, "GET", "http://127.0.0.1:1", ""))
	if want := "address not allowed: 127.0.0.1:1 is a loopback address, or leads to one"; err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("got %v, want %s", err, want)
	}
	if want := `level=DEBUG msg="an address was refused" address=127.0.0.1:1 reason=loopback`; !strings.Contains(journal.String(), want) {
		t.Errorf("the log has %s, want %s", journal, want)
	}
	want := `
# HELP varco_apiserver_proxy_dials_total Connections to targets that were made (ok) or not (failed, refusals included).
# TYPE varco_apiserver_proxy_dials_total counter
varco_apiserver_proxy_dials_total{result="failed"} 1
varco_apiserver_proxy_dials_total{result="ok"} 0
# HELP varco_apiserver_proxy_refused_addresses_total Addresses of targets that were not dialled, by the reason.
# TYPE varco_apiserver_proxy_refused_addresses_total counter
varco_apiserver_proxy_refused_addresses_total{reason="loopback"} 1
`
	if err := testutil.CollectAndCompare(o.Collector(), strings.NewReader(want)); err != nil {
		t.Error(err)
	}
	if problems, err := testutil.CollectAndLint(o.Collector()); err != nil || len(problems) > 0 {
		t.Errorf("%v, %v", problems, err)
	}
}

// TestRedirects hands redirects back (CVE-2018-1002102, CVE-2020-8559): credentials would go to whom the target names.
func TestRedirects(t *testing.T) {
	other := newTarget(t, describe, plain)
	for _, code := range []int{301, 302, 303, 307, 308} {
		server := newTarget(t, func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, other.URL+"/stolen", code) }, plain)
		o := loose(t, outbound.Config{})
		p := outbound.Profile{Scheme: "http"}
		for lane, rt := range map[string]http.RoundTripper{"ordinary": o.RoundTripper(p), "upgrade": o.Upgrade(p)} {
			r := request(t, "GET", server.URL, "")
			if lane == "upgrade" {
				r.Header.Set("Connection", "Upgrade")
				r.Header.Set("Upgrade", "SPDY/3.1")
			}
			resp, err := rt.RoundTrip(r)
			if err != nil {
				t.Fatal(err)
			}
			resp.Body.Close()
			if resp.StatusCode != code || resp.Header.Get("Location") != other.URL+"/stolen" {
				t.Errorf("%s: got %d to %q", lane, resp.StatusCode, resp.Header.Get("Location"))
			}
		}
	}
	if all, _ := other.connections(); all != 0 {
		t.Errorf("%d redirects were followed", all)
	}
}
