package locate_test

import (
	"net/netip"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiwatch/directory"
	"varco.dev/internal/service"
)

// The cases are those of upstream's TestServiceRegistryResourceLocation. "" is an error.
func TestServiceUpstream(t *testing.T) {
	w := newWorld(
		newPod("unnamed", "1.2.3.4", "1.2.3.5"), newPod("named", "1.2.3.6", "1.2.3.7"), newPod("no-endpoints", "9.9.9.9"),
		newService("unnamed", port("", 93)), newService("unnamed2", port("", 93)), newService("no-endpoints", port("", 93)),
		newService("named", port("p", 93), port("q", 76)),
		newSlice("unnamed", "unnamed-ep", "", 80, ready("1.2.3.4", "unnamed")),
		newSlice("unnamed2", "unnamed2-ep", "", 80, ready("1.2.3.5", "unnamed")),
		newSlice("no-endpoints", "no-endpoints-ep", "", 80),
	)
	named := newSlice("named", "named-ep", "p", 80, ready("1.2.3.6", "named"))
	named.Ports = append(named.Ports, directory.SlicePort{Name: "q", Number: 81, Protocol: service.TCP})
	w.put(named)
	l := locate.New(locate.Config{}, w)
	for query, want := range map[string]string{
		"unnamed":         "http://1.2.3.4:80",
		"unnamed:":        "http://1.2.3.4:80",
		"unnamed:93":      "http://1.2.3.4:80",
		"http:unnamed:":   "http://1.2.3.4:80",
		"http:unnamed:93": "http://1.2.3.4:80",
		"unnamed2":        "http://1.2.3.5:80",
		"named:p":         "http://1.2.3.6:80",
		"named:q":         "http://1.2.3.6:81",
		"named:93":        "http://1.2.3.6:80",
		"named:76":        "http://1.2.3.6:81",
		"http:named:p":    "http://1.2.3.6:80",
		"http:named:q":    "http://1.2.3.6:81",
	} {
		if d, err := find(t, l, address.Service, query); err != nil || url(d) != want {
			t.Errorf("%s: error %v, %+v", query, err, d)
		}
	}
	for query, want := range map[string]string{
		"unnamed:80":             `no service port 80 found for service "unnamed"`,
		"named:80":               `no service port 80 found for service "named"`,
		"named:-1":               `no service port -1 found for service "named"`,
		"named:65629":            `no service port 65629 found for service "named"`, // 93 in 16 bits
		"named:bad":              `no endpoints available for service "named"`,
		"named":                  `no endpoints available for service "named"`, // two ports with names: none is meant
		"no-endpoints":           `no endpoints available for service "no-endpoints"`,
		"no-endpoints:93":        `no endpoints available for service "no-endpoints"`,
		"non-existent":           `no endpoints available for service "non-existent"`,
		"https:non-existent:web": `no endpoints available for service "non-existent"`,
	} {
		_, err := find(t, l, address.Service, query)
		refused(t, query, err, 503, want)
	}
	_, err := find(t, l, address.Service, "non-existent:80")
	refused(t, "number", err, 404, `services "non-existent" not found`)
}

// web is a world with one Service that has a port of a name, an appProtocol, and one endpoint.
func web(ports ...directory.ServicePort) *world {
	w := newWorld(newService("web", ports...), newPod("a", "10.0.0.1"))
	s := newSlice("web", "web-1", ports[0].Name, 8080, ready("10.0.0.1", "a"))
	for _, p := range ports[1:] {
		s.Ports = append(s.Ports, directory.SlicePort{Name: p.Name, Number: p.Number + 8000, Protocol: service.TCP})
	}
	w.put(s)
	return w
}

func TestServicePorts(t *testing.T) {
	for name, c := range map[string]struct {
		w     *world
		query string
		want  string
	}{
		"the only port though it has a name":    {web(port("http", 80)), "web", "http://10.0.0.1:8080"},
		"the unnamed one of several":            {web(port("metrics", 90), port("", 85)), "web", "http://10.0.0.1:8085"},
		"a name":                                {web(port("web", 80), port("admin", 90)), "web:admin", "http://10.0.0.1:8090"},
		"a number":                              {web(port("web", 80), port("admin", 90)), "web:90", "http://10.0.0.1:8090"},
		"a number as upstream reads it":         {web(port("web", 80), port("admin", 90)), "web:+090", "http://10.0.0.1:8090"},
		"an https port":                         {web(port("https", 443)), "web", "https://10.0.0.1:8080"},
		"an https port, and the URL wants http": {web(port("https", 443)), "http:web:", "http://10.0.0.1:8080"},
	} {
		if d, err := find(t, locate.New(locate.Config{}, c.w), address.Service, c.query); err != nil || url(d) != c.want {
			t.Errorf("%s: error %v, %+v", name, err, d)
		}
	}
}

// Ports of other protocols never count, though they may have the same number, and in slices the same name.
func TestServiceOtherProtocols(t *testing.T) {
	s := newService("dns", port("dns", 53), port("dns-tcp", 53), port("quic", 443))
	s.Ports[0].Protocol, s.Ports[2].Protocol = service.UDP, service.SCTP
	slice := newSlice("dns", "dns-1", "dns-tcp", 5353, ready("10.0.0.1", "a"))
	slice.Ports = append([]directory.SlicePort{
		{Name: "dns", Number: 5300, Protocol: service.UDP},
		{Name: "dns-tcp", Number: 5301, Protocol: service.UDP},
		{Name: "dns-tcp", Protocol: service.TCP}, // without a number
		{Name: "quic", Number: 5302, Protocol: service.SCTP},
	}, slice.Ports...)
	l := locate.New(locate.Config{}, newWorld(s, slice, newPod("a", "10.0.0.1")))
	for _, query := range []string{"dns", "dns:53", "dns:dns-tcp"} {
		if d, err := find(t, l, address.Service, query); err != nil || url(d) != "http://10.0.0.1:5353" || d.Port != "dns-tcp" {
			t.Errorf("%s: error %v, %+v", query, err, d)
		}
	}
	for query, want := range map[string]string{
		"dns:443":  `no service port 443 found for service "dns"`,
		"dns:dns":  `no endpoints available for service "dns"`,
		"dns:quic": `no endpoints available for service "dns"`,
	} {
		_, err := find(t, l, address.Service, query)
		refused(t, query, err, 503, want)
	}
}

func TestServiceKinds(t *testing.T) {
	w := web(port("http", 80))
	external := newService("web", port("http", 80))
	external.ExternalName = true
	l := locate.New(locate.Config{}, w)
	w.put(newService("web")) // a headless one may have no ports: the name is in the slice alone
	if d, err := find(t, l, address.Service, "web:http"); err != nil || url(d) != "http://10.0.0.1:8080" || d.Port != "http" {
		t.Errorf("headless without ports: error %v, %+v", err, d)
	}
	w.put(external)
	for query, want := range map[string]string{
		"web":      `no endpoints available for service "web"`,
		"web:80":   `no endpoints available for service "web"`,
		"web:http": `no endpoints available for service "web"`,
		"web:81":   `no service port 81 found for service "web"`,
	} {
		_, err := find(t, l, address.Service, query)
		refused(t, "ExternalName "+query, err, 503, want)
	}
}

// An endpoint counts only if a pod of the Service's namespace has its address now, or if all may reach the address.
func TestServiceAllowed(t *testing.T) {
	other := service.Name{Namespace: "other", Name: "a"}
	terminated := newPod("done", "10.0.0.5")
	terminated.Terminated = true
	foreign := newPod("a", "10.0.0.3")
	foreign.Name = other
	of := func(addr string, pod service.Name) directory.Endpoint {
		return directory.Endpoint{Addr: netip.MustParseAddr(addr), Ready: true, Serving: true, Pod: pod}
	}
	w := newWorld(newService("web", port("", 80)), newPod("a", "10.0.0.1", "fd00::1"), terminated, foreign,
		newSlice("web", "web-1", "", 80,
			of("10.0.0.1", in("a")),
			of("10.0.0.2", in("a")),        // the pod has another address
			of("10.0.0.3", other),          // of another namespace
			of("10.0.0.4", service.Name{}), // no pod
			of("10.0.0.5", in("done")),     // its address may be another's
			of("10.0.0.6", in("unknown")),
			directory.Endpoint{Ready: true, Pod: in("a")}, // no address
			of("192.0.2.1", service.Name{}),
			of("192.0.2.2", other),
		))
	for cidr, want := range map[string][]string{
		"":             {"10.0.0.1:80"},
		"192.0.2.0/24": {"10.0.0.1:80", "192.0.2.1:80", "192.0.2.2:80"},
		"192.0.2.2/32": {"10.0.0.1:80", "192.0.2.2:80"},
		"10.0.0.4/32":  {"10.0.0.1:80", "10.0.0.4:80"},
		"::/0":         {"10.0.0.1:80"},
	} {
		var c locate.Config
		if cidr != "" {
			c.AllowCIDRs = []netip.Prefix{netip.MustParsePrefix(cidr)}
		}
		d, err := find(t, locate.New(c, w), address.Service, "web")
		if err != nil {
			t.Errorf("%s: %v", cidr, err)
		} else if diff := cmp.Diff(want, addrs(d)); diff != "" {
			t.Errorf("%s: (-want +got):\n%s", cidr, diff)
		}
	}
}

// All endpoints of the best rank of all slices are used, none twice.
func TestServiceRanks(t *testing.T) {
	starting := notReady("10.0.0.2", "a")
	starting.Serving = true // and it does not terminate: no pod is so, but an endpoint that somebody writes may be
	primary := newSlice("web", "1", "", 80, ready("10.0.0.1", "a"), notReady("10.0.0.2", "a"), draining("10.0.0.3", "a"), starting)
	again := newSlice("web", "2", "", 80, ready("10.0.0.1", "a"), ready("10.0.0.4", "a"))
	otherPort := newSlice("web", "3", "", 81, ready("10.0.0.1", "a"))
	wrongPort := newSlice("web", "4", "admin", 80, ready("10.0.0.2", "a"))
	six := newSlice("web", "5", "", 80, ready("fd00::1", "a"), draining("fd00::2", "a"))
	drained := newSlice("web", "6", "", 80, notReady("10.0.0.2", "a"), starting, draining("10.0.0.3", "a"))
	drained6 := newSlice("web", "7", "", 80, draining("fd00::2", "a"))
	publish := newSlice("web", "8", "", 80, directory.Endpoint{Addr: netip.MustParseAddr("10.0.0.2"), Pod: in("a"),
		Ready: true, Terminating: true}) // publishNotReadyAddresses
	v4, v6 := service.IPv4, service.IPv6
	for name, c := range map[string]struct {
		families []service.Family
		slices   []*directory.Slice
		want     []string
	}{
		"ready ones of all slices": {[]service.Family{v4, v6}, []*directory.Slice{six, primary, again, otherPort, wrongPort},
			[]string{"10.0.0.1:80", "10.0.0.1:81", "10.0.0.4:80"}},
		"the Service's own primary family":  {[]service.Family{v6, v4}, []*directory.Slice{primary, six}, []string{"[fd00::1]:80"}},
		"the other family":                  {[]service.Family{v4, v6}, []*directory.Slice{drained, six}, []string{"[fd00::1]:80"}},
		"draining if none is ready":         {[]service.Family{v4}, []*directory.Slice{drained6, drained}, []string{"-10.0.0.3:80"}},
		"draining ones of the other family": {[]service.Family{v4}, []*directory.Slice{drained6}, []string{"-[fd00::2]:80"}},
		"ready is ready":                    {[]service.Family{v4}, []*directory.Slice{publish, drained}, []string{"10.0.0.2:80"}},
		"no family known":                   {nil, []*directory.Slice{six, again}, []string{"10.0.0.1:80", "10.0.0.4:80", "[fd00::1]:80"}},
	} {
		t.Run(name, func(t *testing.T) {
			s := newService("web", port("", 80))
			s.Families = c.families
			w := newWorld(s, newPod("a", "10.0.0.1", "10.0.0.2", "10.0.0.3", "10.0.0.4", "fd00::1", "fd00::2"))
			for _, slice := range c.slices {
				w.put(slice)
			}
			d, err := find(t, locate.New(locate.Config{}, w), address.Service, "web")
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(c.want, addrs(d)); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func TestServiceDestination(t *testing.T) {
	s := newService("web", directory.ServicePort{Number: 443, AppProtocol: "https"}, port("h2", 80))
	s.Affinity, s.Cookie, s.Backend = time.Hour, true, directory.BackendTLS{CA: "pem"}
	e := ready("10.0.0.1", "a")
	e.Node, e.Zone, e.ForZones = "n", "z", []string{"z"}
	slice := newSlice("web", "1", "", 8443, e)
	slice.Ports = append(slice.Ports, directory.SlicePort{Name: "h2", Number: 80, Protocol: service.TCP, AppProtocol: "kubernetes.io/h2c"})
	w := newWorld(s, slice, newPod("a", "10.0.0.1"))
	l := locate.New(locate.Config{}, w)
	got, err := find(t, l, address.Service, "web")
	want := &locate.Destination{Kind: address.Service, Namespace: "ns", Name: "web", Port: "443", Scheme: locate.HTTPS,
		Key: "service/ns/web/uid-web:443/https", TLS: directory.BackendTLS{CA: "pem", ServerName: "web.ns.svc"},
		Affinity: time.Hour, Cookie: true, Endpoints: []locate.Endpoint{
			{Addr: addrPort("10.0.0.1:8443"), Node: "n", Zone: "z", ForZones: []string{"z"}}}}
	if d := cmp.Diff(want, got, compared()); d != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, d)
	}
	same, err := find(t, l, address.Service, "https:web:443")
	if err != nil || same.Key != got.Key {
		t.Errorf("another pool for the same port: error %v, %+v", err, same)
	}
	plain, err := find(t, l, address.Service, "http:web:443")
	if err != nil || plain.Key == got.Key || plain.TLS != (directory.BackendTLS{}) || plain.Scheme != locate.HTTP {
		t.Errorf("without TLS: error %v, %+v", err, plain)
	}
	h2c, err := find(t, l, address.Service, "web:h2")
	if err != nil || h2c.Scheme != locate.H2C || h2c.Port != "h2" {
		t.Errorf("a slice's appProtocol: error %v, %+v", err, h2c)
	}
	made := *s
	made.UID, made.Backend = "other", directory.BackendTLS{ServerName: "web.example"}
	w.put(&made)
	if d, err := find(t, l, address.Service, "web"); err != nil || d.Key == got.Key || d.TLS != made.Backend {
		t.Errorf("made again: error %v, %+v", err, d)
	}
}
