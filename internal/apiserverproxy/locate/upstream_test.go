package locate_test

import (
	"math/rand/v2"
	"net/netip"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	"k8s.io/apiserver/pkg/util/proxy"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiwatch/directory"
	"varco.dev/internal/service"
)

// draws is how often upstream is asked for a random endpoint. One of ten is missed by all with a probability of 1e-9.
const draws = 200

// upstream returns the endpoints that kube-apiserver's RandomEndpoint finds, sorted, as "ADDRESS:PORT".
func upstream(t *testing.T, of []*directory.Slice, port string, primary service.Family, valid func(string) bool) []string {
	t.Helper()
	var objects []*discoveryv1.EndpointSlice
	for _, s := range of {
		objects = append(objects, object(s))
	}
	found := map[string]bool{}
	for range draws {
		got, err := proxy.RandomEndpoint("web", objects, port, corev1.IPFamily(typeOf(primary)),
			func(e *discoveryv1.Endpoint) bool { return valid(e.Addresses[0]) })
		if err != nil {
			return nil
		}
		found[got] = true
	}
	return sorted(found)
}

func sorted(of map[string]bool) (out []string) {
	for s := range of {
		out = append(out, s)
	}
	slices.Sort(out)
	return out
}

func typeOf(f service.Family) discoveryv1.AddressType {
	return map[service.Family]discoveryv1.AddressType{service.IPv4: discoveryv1.AddressTypeIPv4,
		service.IPv6: discoveryv1.AddressTypeIPv6}[f]
}

// object returns the API object of a slice.
func object(s *directory.Slice) *discoveryv1.EndpointSlice {
	o := &discoveryv1.EndpointSlice{AddressType: typeOf(s.Family)}
	for _, p := range s.Ports {
		number := int32(p.Number)
		o.Ports = append(o.Ports, discoveryv1.EndpointPort{Name: &p.Name, Port: &number})
	}
	for _, e := range s.Endpoints {
		o.Endpoints = append(o.Endpoints, discoveryv1.Endpoint{Addresses: []string{e.Addr.String()},
			Conditions: discoveryv1.EndpointConditions{Ready: &e.Ready, Serving: &e.Serving, Terminating: &e.Terminating}})
	}
	return o
}

// everywhere allows all addresses, as ResolveEndpoint of upstream does, which looks at no pods.
func everywhere() locate.Config {
	return locate.Config{AllowCIDRs: []netip.Prefix{netip.MustParsePrefix("0.0.0.0/0"), netip.MustParsePrefix("::/0")}}
}

// The cases are those of upstream's TestResolveEndpointDistribution; and the original is asked in the same test.
func TestUpstreamDistribution(t *testing.T) {
	ok := func(a string) directory.Endpoint { return ready(a, "") }
	bad := func(a string) directory.Endpoint { return notReady(a, "") }
	slice := func(name string, es ...directory.Endpoint) *directory.Slice {
		return newSlice("web", name, "https", 443, es...)
	}
	for name, c := range map[string]struct {
		slices []*directory.Slice
		want   []string
	}{
		"simple": {[]*directory.Slice{slice("1", ok("10.0.0.1")), slice("2", ok("10.0.0.2"))},
			[]string{"10.0.0.1:443", "10.0.0.2:443"}},
		"multiple endpoints, some non-ready": {[]*directory.Slice{
			slice("1", ok("10.0.0.1"), bad("10.0.0.2"), ok("10.0.0.3")), slice("2", ok("10.0.0.4")),
			slice("3", bad("10.0.0.5"), bad("10.0.0.6"))}, []string{"10.0.0.1:443", "10.0.0.3:443", "10.0.0.4:443"}},
		"dual-stack, primary-family endpoints ready": {[]*directory.Slice{
			slice("v6", ok("fd00::1"), ok("fd00::2")), slice("v4", ok("10.0.0.1"), ok("10.0.0.2"))},
			[]string{"10.0.0.1:443", "10.0.0.2:443"}},
		"dual-stack, primary-family endpoints non-ready": {[]*directory.Slice{
			slice("v4", bad("10.0.0.1"), bad("10.0.0.2")), slice("v6", ok("fd00::1"), ok("fd00::2"))},
			[]string{"[fd00::1]:443", "[fd00::2]:443"}},
		"many slices, many endpoints, most unusable": {[]*directory.Slice{
			slice("v4-1", bad("10.0.0.1")), slice("v6-1", ok("fd00::1"), ok("fd00::2")), slice("v4-2"),
			slice("v4-3", ok("10.0.0.2")), newSlice("web", "v4-4", "http", 443, ok("10.0.0.3"))}, []string{"10.0.0.2:443"}},
		"without endpoints": {[]*directory.Slice{slice("1")}, nil},
		"without slices":    {nil, nil},
	} {
		t.Run(name, func(t *testing.T) {
			w := newWorld(newService("web", port("https", 443)))
			for _, s := range c.slices {
				w.put(s)
			}
			for _, query := range []string{"web", "web:443", "web:https"} {
				d, err := find(t, locate.New(everywhere(), w), address.Service, query)
				if c.want == nil {
					refused(t, query, err, 503, `no endpoints available for service "web"`)
				} else if err != nil || !slices.Equal(addrs(d), c.want) {
					t.Errorf("%s: error %v, %+v", query, err, d)
				}
			}
			got := upstream(t, c.slices, "https", service.IPv4, func(string) bool { return true })
			if !slices.Equal(got, c.want) {
				t.Errorf("the case is not upstream's any more: %v", got)
			}
		})
	}
}

// The cases are those of upstream's TestResolve, for endpoints; it looks for port 443 of any Service.
func TestUpstreamResolve(t *testing.T) {
	two := func() *directory.Service { return newService("alfa", port("https", 443), port("", 1234)) }
	external := newService("alfa")
	external.ExternalName = true
	none := newService("alfa")
	local := newSlice("alfa", "alfa-xxx", "https", 1443, ready("127.0.0.1", ""))
	const missing, noPort = `no endpoints available for service "alfa"`, `no service port 443 found for service "alfa"`
	for name, c := range map[string]struct {
		objects []any
		want    string // a URL, or an error
	}{
		"cluster ip without 443 port":       {[]any{newService("alfa", port("", 1234)), local}, noPort},
		"cluster ip":                        {[]any{two(), local}, "https://127.0.0.1:1443"},
		"cluster ip without endpointslices": {[]any{two()}, missing},
		"endpointslice without addresses":   {[]any{two(), newSlice("alfa", "alfa-xxx", "https", 1443)}, missing},
		"none cluster ip":                   {[]any{none}, noPort},
		"external name":                     {[]any{external}, noPort},
	} {
		d, err := find(t, locate.New(everywhere(), newWorld(c.objects...)), address.Service, "alfa:443")
		if !strings.HasPrefix(c.want, "https:") {
			refused(t, name, err, 503, c.want)
		} else if err != nil || url(d) != c.want {
			t.Errorf("%s: error %v, %+v", name, err, d)
		}
	}
	_, err := find(t, locate.New(everywhere(), newWorld()), address.Service, "alfa:443")
	refused(t, "missing service", err, 404, `services "alfa" not found`)
}

// Whatever the slices are: ours are all that upstream's random choice can come to, and more only if there is none.
func TestUpstreamModel(t *testing.T) {
	random := rand.New(rand.NewPCG(1, 2))
	some := 0
	for range 300 {
		w, all := randomWorld(random)
		primary := []service.Family{service.IPv4, service.IPv6}[random.IntN(2)]
		s := newService("web", port("p", 80), port("q", 81))
		s.Families = []service.Family{primary}
		w.put(s)
		want := upstream(t, all, "p", primary, func(a string) bool {
			return slices.Contains(w.pods[in("a")].Addrs, netip.MustParseAddr(a))
		})
		var got []string
		d, err := find(t, locate.New(locate.Config{}, w), address.Service, "web:p")
		if err == nil {
			got = addrs(d)
		}
		slices.Sort(got)
		switch {
		case want != nil:
			some++
			if !slices.Equal(got, want) {
				t.Fatalf("%v, upstream %v\n%+v", got, want, all)
			}
		case strings.Contains(strings.Join(got, ""), ":") && !strings.HasPrefix(got[0], "-"):
			t.Fatalf("%v, upstream none\n%+v", got, all)
		}
	}
	if some < 100 {
		t.Errorf("only %d worlds with endpoints", some)
	}
}

// randomWorld returns a world with the pod "a", which has some of the addresses of the slices it also returns.
func randomWorld(random *rand.Rand) (*world, []*directory.Slice) {
	addresses := map[service.Family][]netip.Addr{
		service.IPv4: ips("10.0.0.1", "10.0.0.2", "10.0.0.3"), service.IPv6: ips("fd00::1", "fd00::2", "fd00::3")}
	pod := newPod("a", "10.0.0.1", "10.0.0.3", "fd00::1", "fd00::3")
	w := newWorld(pod)
	for _, name := range []string{"1", "2", "3", "4"}[:1+random.IntN(4)] {
		s := newSlice("web", name, []string{"p", "p", "q"}[random.IntN(3)], uint16(80+random.IntN(2)))
		s.Family = []service.Family{service.IPv4, service.IPv6}[random.IntN(2)]
		for range random.IntN(4) {
			s.Endpoints = append(s.Endpoints, directory.Endpoint{Addr: addresses[s.Family][random.IntN(3)],
				Ready: random.IntN(2) == 0, Serving: random.IntN(2) == 0, Terminating: random.IntN(2) == 0, Pod: in("a")})
		}
		w.put(s)
	}
	return w, w.slices[in("web")]
}
