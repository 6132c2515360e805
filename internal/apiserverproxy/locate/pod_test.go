package locate_test

import (
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiwatch/directory"
	"varco.dev/internal/service"
)

func tcp(name string, number uint16) directory.PodPort {
	return directory.PodPort{Name: name, Number: number, Protocol: service.TCP}
}

func podWith(addresses []string, ports ...directory.PodPort) *directory.Pod {
	p := newPod("foo", addresses...)
	p.Ports = ports
	return p
}

// The cases are those of upstream's TestResourceLocation and TestGetPodIP of pods. Upstream's location has no port if
// the pod declares none, and its transport takes that of the scheme.
func TestPodUpstream(t *testing.T) {
	const ip, ip6 = "1.2.3.4", "fd00:10:244:0:2::6b"
	for _, c := range []struct {
		pod   *directory.Pod
		query string
		want  string
	}{
		{podWith([]string{ip}), "foo", "http://1.2.3.4:80"},
		{podWith([]string{ip}), "foo:12345", "http://1.2.3.4:12345"},
		{podWith([]string{ip6}), "foo", "http://[fd00:10:244:0:2::6b]:80"},
		{podWith([]string{ip}, tcp("", 9376)), "foo", "http://1.2.3.4:9376"},
		{podWith([]string{ip}, tcp("", 9376)), "foo:12345", "http://1.2.3.4:12345"},
		{podWith([]string{ip}, tcp("", 9376), tcp("", 1234)), "foo", "http://1.2.3.4:9376"},
		{podWith([]string{ip, ip6}, tcp("", 9376), tcp("", 1234)), "foo", "http://1.2.3.4:9376"},
		{podWith([]string{ip6, ip}, tcp("", 9376), tcp("", 1234)), "foo", "http://[fd00:10:244:0:2::6b]:9376"},
		{podWith([]string{"10.0.0.10"}), "foo", "http://10.0.0.10:80"},
		{podWith([]string{"10.0.0.10", "10.0.0.20"}), "foo", "http://10.0.0.10:80"},
	} {
		d, err := find(t, locate.New(locate.Config{}, newWorld(c.pod)), address.Pod, c.query)
		if err != nil {
			t.Errorf("%s: %v", c.query, err)
		} else if got := url(d); got != c.want {
			t.Errorf("%s: %s, want %s", c.query, got, c.want)
		}
	}
	_, err := find(t, locate.New(locate.Config{}, newWorld(podWith(nil))), address.Pod, "foo")
	refused(t, "no address", err, 400, "address not allowed")
}

func TestPod(t *testing.T) {
	foo := podWith([]string{"10.0.0.1", "fd00::1"}, tcp("web", 8080), tcp("https", 8443), tcp("grpc-api", 9000),
		directory.PodPort{Name: "dns", Number: 53, Protocol: service.UDP}, tcp("", 9100))
	meshed := newPod("meshed", "10.0.0.3")
	meshed.Ports = []directory.PodPort{{Name: "stats", Number: 15090, Protocol: service.TCP, Sidecar: true}}
	l := locate.New(locate.Config{}, newWorld(foo, newPod("bare", "10.0.0.2"), meshed))
	for query, want := range map[string]string{
		"foo":              "http://10.0.0.1:8080",
		"foo:":             "http://10.0.0.1:8080",
		"https:foo:":       "https://10.0.0.1:8080",
		"foo:web":          "http://10.0.0.1:8080",
		"foo:8080":         "http://10.0.0.1:8080",
		"foo:1":            "http://10.0.0.1:1",
		"foo:65535":        "http://10.0.0.1:65535",
		"foo:https":        "https://10.0.0.1:8443",
		"foo:8443":         "https://10.0.0.1:8443",
		"http:foo:https":   "http://10.0.0.1:8443",
		"foo:grpc-api":     "h2c://10.0.0.1:9000",
		"http:foo:9000":    "h2c://10.0.0.1:9000",
		"https:foo:9000":   "https://10.0.0.1:9000",
		"foo:53":           "http://10.0.0.1:53",
		":foo:web":         "http://10.0.0.1:8080",
		"foo:http":         "http://10.0.0.1:80", // not declared: as upstream's dialer resolves it
		"bare:https":       "http://10.0.0.2:443",
		"bare":             "http://10.0.0.2:80",
		"https:bare:":      "https://10.0.0.2:443",
		"https:bare:https": "https://10.0.0.2:443",
		"meshed":           "http://10.0.0.3:80", // upstream knows no ports of sidecars
		"meshed:stats":     "http://10.0.0.3:15090",
	} {
		d, err := find(t, l, address.Pod, query)
		if err != nil {
			t.Errorf("%s: %v", query, err)
		} else if got := url(d); got != want {
			t.Errorf("%s: %s, want %s", query, got, want)
		}
	}
}

func TestPodRefused(t *testing.T) {
	gone := newPod("gone", "10.0.0.9")
	gone.Terminated = true
	foo := podWith([]string{"10.0.0.1"}, directory.PodPort{Name: "dns", Number: 53, Protocol: service.UDP})
	w := newWorld(foo, gone)
	for name, addr := range map[string]string{
		"loop": "127.0.0.1", "loop6": "::1", "link": "169.254.169.254", "link6": "fe80::1", "all": "255.255.255.255",
		"none": "0.0.0.0", "none6": "::", "multi": "224.0.0.1", "multi6": "ff02::1", "mapped": "::ffff:127.0.0.1",
	} {
		w.put(newPod(name, addr))
		w.put(newPod(name+"-second", "10.0.0.1", addr))
	}
	l := locate.New(locate.Config{}, w)
	for name := range w.pods {
		_, err := find(t, l, address.Pod, name.Name+":80")
		switch name.Name {
		case "foo", "loop-second", "loop6-second", "link-second", "link6-second", "all-second", "none-second", "none6-second",
			"multi-second", "multi6-second", "mapped-second":
			if err != nil {
				t.Errorf("%s: %v", name, err)
			}
		case "gone":
			refused(t, "terminated", err, 503, `pod "gone" has terminated`)
		default:
			refused(t, name.Name, err, 400, "address not allowed")
		}
	}
	for query, want := range map[string]string{
		"foo:dest1": `no port "dest1" found for pod "foo"`,
		"foo:dns":   `no port "dns" found for pod "foo"`, // of another protocol
		"foo:0":     `no port "0" found for pod "foo"`,
		"foo:65536": `no port "65536" found for pod "foo"`,
		"foo:-1":    `no port "-1" found for pod "foo"`,
	} {
		_, err := find(t, l, address.Pod, query)
		refused(t, query, err, 503, want)
	}
	_, err := find(t, l, address.Pod, "nobody:80")
	refused(t, "unknown", err, 404, `pods "nobody" not found`)
}

func TestPodDestination(t *testing.T) {
	p := podWith([]string{"::ffff:10.0.0.1"}, tcp("https", 8443))
	p.Backend = directory.BackendTLS{CA: "pem", ServerName: "foo.example"}
	l := locate.New(locate.Config{}, newWorld(p))
	got, err := find(t, l, address.Pod, "foo")
	want := &locate.Destination{Kind: address.Pod, Namespace: "ns", Name: "foo", Port: "8443", Scheme: locate.HTTPS,
		Key: "pod/ns/foo/uid-foo:8443/https", TLS: p.Backend,
		Endpoints: []locate.Endpoint{{Addr: addrPort("10.0.0.1:8443")}}}
	if d := cmp.Diff(want, got, compared()); d != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, d)
	}
	if plain, err := find(t, l, address.Pod, "http:foo:"); err != nil || plain.TLS != (directory.BackendTLS{}) ||
		plain.Key == got.Key {
		t.Errorf("without TLS: error %v, %+v", err, plain)
	}
}

// TestWrongAnnotations wants a target whose annotations about TLS are not valid to be refused in TLS, by words that say why, and
// to be reached without.
func TestWrongAnnotations(t *testing.T) {
	p := podWith([]string{"10.0.0.1"}, tcp("", 80))
	s := newService("web", port("", 80))
	p.Backend, s.Backend = directory.BackendTLS{CA: directory.InvalidCA}, directory.BackendTLS{CA: directory.InvalidCA}
	w := newWorld(p, newPod("a", "10.0.0.2"), s, newSlice("web", "1", "", 80, ready("10.0.0.2", "a")))
	l := locate.New(locate.Config{}, w)
	for kind, name := range map[address.Kind]string{address.Pod: "foo", address.Service: "web"} {
		_, err := find(t, l, kind, "https:"+name+":")
		refused(t, name, err, 503, fmt.Sprintf("%s %q: %v", kind, name, p.Backend.Err()))
		if _, err := find(t, l, kind, name); err != nil {
			t.Errorf("%s without TLS: %v", name, err)
		}
	}
}

// A pod that changes is seen at once; one that is written again without a change that matters is not computed again.
func TestPodChanges(t *testing.T) {
	w := newWorld(podWith([]string{"10.0.0.1"}, tcp("web", 80)))
	l := locate.New(locate.Config{}, w)
	first, err := find(t, l, address.Pod, "foo:web")
	if err != nil {
		t.Fatal(err)
	}
	w.put(podWith([]string{"10.0.0.1"}, tcp("web", 80)))
	if again, _ := find(t, l, address.Pod, "foo:web"); again != first {
		t.Error("computed again though nothing changed")
	}
	base := func() *directory.Pod { return podWith([]string{"10.0.0.1"}, tcp("web", 80)) }
	for name, c := range map[string]struct {
		change func(*directory.Pod)
		want   func(*locate.Destination) bool
	}{
		"address": {func(p *directory.Pod) { p.Addrs = ips("10.0.0.2") },
			func(d *locate.Destination) bool { return url(d) == "http://10.0.0.2:80" }},
		"port": {func(p *directory.Pod) { p.Ports = []directory.PodPort{tcp("web", 81)} },
			func(d *locate.Destination) bool { return url(d) == "http://10.0.0.1:81" }},
		"made again": {func(p *directory.Pod) { p.UID = "other" }, func(d *locate.Destination) bool { return d.Key != first.Key }},
		"another CA": {func(p *directory.Pod) { p.Backend.CA = "pem" },
			func(d *locate.Destination) bool { return d != first }},
	} {
		w.put(base())
		if first, err = find(t, l, address.Pod, "foo:web"); err != nil {
			t.Fatal(err)
		}
		p := base()
		c.change(p)
		w.put(p)
		if d, err := find(t, l, address.Pod, "foo:web"); err != nil || !c.want(d) {
			t.Errorf("%s: error %v, %+v", name, err, d)
		}
	}
	dead := base()
	dead.Terminated = true
	w.put(dead)
	_, err = find(t, l, address.Pod, "foo:web")
	refused(t, "terminated", err, 503, `pod "foo" has terminated`)
}
