package directory_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/json"
	"encoding/pem"
	"math/big"
	"net/netip"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"varco.dev/internal/apiwatch/directory"
	"varco.dev/internal/service"
)

func addrs() cmp.Option { return cmp.Comparer(func(a, b netip.Addr) bool { return a == b }) }

// certificate returns one that nobody will use, as PEM without the last line break.
func certificate(t testing.TB) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	c := &x509.Certificate{SerialNumber: big.NewInt(1), NotAfter: time.Now().Add(time.Hour), IsCA: true}
	der, err := x509.CreateCertificate(rand.Reader, c, c, key.Public(), key)
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}

func addr(s string) netip.Addr { return netip.MustParseAddr(s) }

func object[T any](t *testing.T, text string) *T {
	t.Helper()
	var out T
	if err := json.Unmarshal([]byte(text), &out); err != nil {
		t.Fatal(err)
	}
	return &out
}

func TestServices(t *testing.T) {
	tcp, udp := service.TCP, service.UDP
	for _, c := range []struct {
		name     string
		obj      string
		want     directory.Service
		problems int
	}{
		{"all of it", `{"metadata":{"namespace":"x","name":"a","uid":"u","annotations":{"varco.dev/affinity":" cookie ","varco.dev/backend-server-name":"a.example"}},
		  "spec":{"clusterIP":"10.96.0.1","ipFamilies":["IPv6","IPv4"],"selector":{"a":"b"},"sessionAffinity":"ClientIP",
		  "sessionAffinityConfig":{"clientIP":{"timeoutSeconds":60}},
		  "ports":[{"name":"http","port":80,"appProtocol":"kubernetes.io/h2c"},{"name":"dns","port":53,"protocol":"UDP"}]}}`,
			directory.Service{Name: x("a"), UID: "u", Families: []service.Family{6, 4}, Affinity: time.Minute, Cookie: true,
				Backend: directory.BackendTLS{ServerName: "a.example"},
				Ports:   []directory.ServicePort{{Name: "http", Number: 80, Protocol: tcp, AppProtocol: "kubernetes.io/h2c"}, {Name: "dns", Number: 53, Protocol: udp}}}, 0},
		{"headless, without a port", `{"metadata":{"namespace":"x","name":"a"},"spec":{"clusterIP":"None","ipFamilies":["IPv4"]}}`,
			directory.Service{Name: x("a"), Families: []service.Family{4}, Ports: []directory.ServicePort{}}, 0},
		{"a name of the DNS", `{"metadata":{"namespace":"x","name":"a"},"spec":{"type":"ExternalName","externalName":"example.com"}}`,
			directory.Service{Name: x("a"), ExternalName: true, Families: []service.Family{}, Ports: []directory.ServicePort{}}, 0},
		{"of an old server", `{"metadata":{"namespace":"x","name":"a"},"spec":{"clusterIP":"fd00::1","ports":[{"port":80}]}}`,
			directory.Service{Name: x("a"), Families: []service.Family{6}, Ports: []directory.ServicePort{{Number: 80, Protocol: tcp}}}, 0},
		{"not valid", `{"metadata":{"namespace":"x","name":"a","annotations":{"varco.dev/affinity":"tea"}},"spec":{"clusterIP":"10.96.0.1",
		  "ipFamilies":["IPv5"],"sessionAffinity":"Moon","ports":[{"port":0},{"port":70000},{"port":1,"protocol":"ICMP"},{"port":2}]}}`,
			directory.Service{Name: x("a"), Families: []service.Family{4}, Ports: []directory.ServicePort{{Number: 2, Protocol: tcp}}}, 6},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, problems := directory.ServiceOf(object[corev1.Service](t, c.obj))
			if diff := cmp.Diff(&c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if len(problems) != c.problems {
				t.Errorf("problems: %v, want %d", problems, c.problems)
			}
		})
	}
}

func TestSlices(t *testing.T) {
	label := `"metadata":{"namespace":"x","name":"a-1","labels":{"kubernetes.io/service-name":"a"}}`
	for _, c := range []struct {
		name     string
		obj      string
		want     *directory.Slice
		problems int
	}{
		{"all of it", `{` + label + `,"addressType":"IPv4","ports":[{"name":"web","port":8080,"appProtocol":"https"},{"name":"dns","port":53,"protocol":"UDP"}],
		  "endpoints":[{"addresses":["10.0.0.2","10.0.0.9"],"conditions":{"ready":true,"serving":true,"terminating":false},"nodeName":"n","zone":"z",
		  "hints":{"forZones":[{"name":"z"}],"forNodes":[{"name":"n"}]},"targetRef":{"kind":"Pod","namespace":"x","name":"p"}},
		  {"addresses":["10.0.0.1"],"conditions":{"ready":false,"serving":true,"terminating":true}}]}`,
			&directory.Slice{Name: x("a-1"), Service: x("a"), Family: 4,
				Ports: []directory.SlicePort{{Name: "web", Number: 8080, Protocol: service.TCP, AppProtocol: "https"}, {Name: "dns", Number: 53, Protocol: service.UDP}},
				Endpoints: []directory.Endpoint{
					{Addr: addr("10.0.0.2"), Ready: true, Serving: true, Node: "n", Zone: "z", ForZones: []string{"z"}, Pod: x("p")},
					{Addr: addr("10.0.0.1"), Serving: true, Terminating: true},
				}}, 0},
		{"little of it", `{` + label + `,"addressType":"IPv6","ports":[{"port":1},{"name":"any"},{"name":"zero","port":0}],"endpoints":[{"addresses":["fd00::1"],"targetRef":{"name":"p"}},
		  {"addresses":["fd00::2"],"targetRef":{"kind":"VirtualMachine","namespace":"x","name":"p"}}]}`,
			&directory.Slice{Name: x("a-1"), Service: x("a"), Family: 6, Ports: []directory.SlicePort{{Number: 1, Protocol: service.TCP}},
				Endpoints: []directory.Endpoint{
					{Addr: addr("fd00::1"), Ready: true, Serving: true, Pod: service.Name{Name: "p"}}, {Addr: addr("fd00::2"), Ready: true, Serving: true},
				}}, 0},
		{"not valid", `{` + label + `,"addressType":"IPv4","ports":[{"name":"a","port":70000},{"name":"b","port":1,"protocol":"ICMP"}],
		  "endpoints":[{"addresses":[]},{"addresses":["fd00::1"]},{"addresses":["0.0.0.0"]},{"addresses":["x"]},{"addresses":["010.0.0.1"]}]}`,
			&directory.Slice{Name: x("a-1"), Service: x("a"), Family: 4, Ports: []directory.SlicePort{},
				Endpoints: []directory.Endpoint{{Addr: addr("10.0.0.1"), Ready: true, Serving: true}}}, 5},
		{"of names", `{` + label + `,"addressType":"FQDN","endpoints":[{"addresses":["example.com"]}]}`, nil, 0},
		{"of no Service", `{"metadata":{"namespace":"x","name":"a-1"},"addressType":"IPv4"}`, nil, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, ok, problems := directory.SliceOf(object[discoveryv1.EndpointSlice](t, c.obj))
			if diff := cmp.Diff(c.want, got, addrs()); diff != "" || ok != (c.want != nil) {
				t.Errorf("ok %t (-want +got)\n%s", ok, diff)
			}
			if len(problems) != c.problems {
				t.Errorf("problems: %v, want %d", problems, c.problems)
			}
		})
	}
}

func TestPods(t *testing.T) {
	for _, c := range []struct {
		name     string
		obj      string
		want     directory.Pod
		problems int
	}{
		{"all of it", `{"metadata":{"namespace":"x","name":"p","uid":"u","annotations":{"varco.dev/backend-server-name":"192.0.2.1"}},
		  "spec":{"hostNetwork":true,"initContainers":[{"restartPolicy":"Always","ports":[{"containerPort":15020}]},{"ports":[{"containerPort":1}]}],
		  "containers":[{},{"ports":[{"name":"http","containerPort":8080},{"name":"dns","containerPort":53,"protocol":"UDP"}]},{"ports":[{"containerPort":9090}]}]},
		  "status":{"phase":"Running","podIP":"10.0.0.1","podIPs":[{"ip":"10.0.0.1"},{"ip":"fd00::1"}]}}`,
			directory.Pod{Name: x("p"), UID: "u", Addrs: []netip.Addr{addr("10.0.0.1"), addr("fd00::1")},
				Backend: directory.BackendTLS{ServerName: "192.0.2.1"},
				Ports: []directory.PodPort{
					{Name: "http", Number: 8080, Protocol: service.TCP}, {Name: "dns", Number: 53, Protocol: service.UDP},
					{Number: 9090, Protocol: service.TCP}, {Number: 15020, Protocol: service.TCP, Sidecar: true},
				}}, 0},
		{"not started", `{"metadata":{"namespace":"x","name":"p"},"status":{"phase":"Pending"}}`, directory.Pod{Name: x("p")}, 0},
		{"of an old server", `{"metadata":{"namespace":"x","name":"p"},"status":{"podIP":"10.0.0.1"}}`,
			directory.Pod{Name: x("p"), Addrs: []netip.Addr{addr("10.0.0.1")}}, 0},
		{"done", `{"metadata":{"namespace":"x","name":"p"},"status":{"phase":"Succeeded"}}`, directory.Pod{Name: x("p"), Terminated: true}, 0},
		{"failed", `{"metadata":{"namespace":"x","name":"p"},"status":{"phase":"Failed"}}`, directory.Pod{Name: x("p"), Terminated: true}, 0},
		{"not valid", `{"metadata":{"namespace":"x","name":"p"},"spec":{"containers":[{"ports":[{"containerPort":0},{"containerPort":1,"protocol":"X"}]}]},
		  "status":{"podIPs":[{"ip":"nonsense"},{"ip":"10.0.0.1"},{"ip":"224.0.0.1"}]}}`,
			directory.Pod{Name: x("p"), Addrs: []netip.Addr{addr("10.0.0.1")}}, 4},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, problems := directory.PodOf(object[corev1.Pod](t, c.obj))
			if diff := cmp.Diff(&c.want, got, addrs()); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if len(problems) != c.problems {
				t.Errorf("problems: %v, want %d", problems, c.problems)
			}
		})
	}
}

func TestNodes(t *testing.T) {
	for _, c := range []struct {
		name     string
		obj      string
		want     directory.Node
		problems int
	}{
		{"all of it", `{"metadata":{"name":"n"},"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":10250}},
		  "addresses":[{"type":"Hostname","address":"n.example"},{"type":"InternalIP","address":"fd00::1"},{"type":"InternalIP","address":""}]}}`,
			directory.Node{Name: "n", KubeletPort: 10250, Addrs: []directory.NodeAddress{{Type: "Hostname", Address: "n.example"}, {Type: "InternalIP", Address: "fd00::1"}}}, 0},
		{"none of it", `{"metadata":{"name":"n"}}`, directory.Node{Name: "n", Addrs: []directory.NodeAddress{}}, 0},
		{"not valid", `{"metadata":{"name":"n"},"status":{"daemonEndpoints":{"kubeletEndpoint":{"Port":70000}}}}`, directory.Node{Name: "n", Addrs: []directory.NodeAddress{}}, 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			got, problems := directory.NodeOf(object[corev1.Node](t, c.obj))
			if diff := cmp.Diff(&c.want, got); diff != "" {
				t.Errorf("(-want +got)\n%s", diff)
			}
			if len(problems) != c.problems {
				t.Errorf("problems: %v, want %d", problems, c.problems)
			}
		})
	}
}

// TestBackendTLS writes what may be in the annotations. What is not valid makes a target that TLS cannot reach, never one
// that is not verified.
func TestBackendTLS(t *testing.T) {
	ca, other := certificate(t), certificate(t)
	invalid := directory.BackendTLS{CA: directory.InvalidCA}
	for _, c := range []struct {
		name, ca, server string
		want             directory.BackendTLS
		problems         int
	}{
		{"nothing", "", "", directory.BackendTLS{}, 0},
		{"a certificate", "\n" + ca + "\n\n", "", directory.BackendTLS{CA: ca}, 0},
		{"two, with words between", ca + "\nthe other one\n" + other, " web.example ", directory.BackendTLS{CA: ca + "\nthe other one\n" + other, ServerName: "web.example"}, 0},
		{"an address", ca, "2001:db8::1", directory.BackendTLS{CA: ca, ServerName: "2001:db8::1"}, 0},
		{"there, and empty", " \n", "", invalid, 1},
		{"no PEM", "nonsense", "", invalid, 1},
		{"the word that stands for not valid", directory.InvalidCA, "", invalid, 1},
		{"cut off", ca[:len(ca)-10], "", invalid, 1},
		{"no certificate in it", "-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----", "", invalid, 1},
		{"the second one is broken", ca + "\n-----BEGIN CERTIFICATE-----\naGVsbG8=\n-----END CERTIFICATE-----", "", invalid, 1},
		{"a key", "-----BEGIN PRIVATE KEY-----\naGVsbG8=\n-----END PRIVATE KEY-----", "", invalid, 1},
		{"too long", ca + strings.Repeat("\n"+ca, 65536/len(ca)), "", invalid, 1},
		{"a bad name", ca, "a b", invalid, 1},
		{"a bad name alone", "", "-", invalid, 1},
		{"an address with a zone", "", "fe80::1%eth0", invalid, 1},
		{"both", "x", "a/b", invalid, 2},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := svc("a")
			s.Annotations = map[string]string{directory.AnnotationBackendServerName: c.server}
			if c.ca != "" {
				s.Annotations[directory.AnnotationBackendCA] = c.ca
			}
			got, problems := directory.ServiceOf(s)
			if diff := cmp.Diff(c.want, got.Backend); diff != "" || len(problems) != c.problems {
				t.Errorf("problems %v (-want +got)\n%s", problems, diff)
			}
			pool, err := x509.NewCertPool(), got.Backend.Err()
			if usable := got.Backend.CA == "" || pool.AppendCertsFromPEM([]byte(got.Backend.CA)); usable != (err == nil) {
				t.Errorf("usable %t, and the error is %v", usable, err)
			}
		})
	}
}

// FuzzConversions converts whatever JSON makes of objects.
func FuzzConversions(f *testing.F) {
	for _, seed := range []string{
		`{"metadata":{"name":"a","annotations":{"varco.dev/affinity":"cookie","varco.dev/backend-ca":"x"}},"spec":{"clusterIP":"10.96.0.1","ports":[{"port":80}]}}`,
		`{"metadata":{"labels":{"kubernetes.io/service-name":"a"}},"addressType":"IPv4","ports":[{"port":1}],"endpoints":[{"addresses":["10.0.0.1"],"targetRef":{"name":"p"}}]}`,
		`{"metadata":{"name":"p"},"spec":{"containers":[{"ports":[{"containerPort":1}]}]},"status":{"podIPs":[{"ip":"::ffff:10.0.0.1"}]}}`,
		`{"status":{"addresses":[{"type":"InternalIP","address":"10.0.0.1"}],"daemonEndpoints":{"kubeletEndpoint":{"Port":10250}}}}`,
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, text []byte) {
		var (
			s  corev1.Service
			sl discoveryv1.EndpointSlice
			pd corev1.Pod
			n  corev1.Node
		)
		if json.Unmarshal(text, &s) == nil {
			v, _ := directory.ServiceOf(&s)
			checkService(t, v)
		}
		if json.Unmarshal(text, &sl) == nil {
			if v, ok, _ := directory.SliceOf(&sl); ok {
				checkSlice(t, v)
			}
		}
		if json.Unmarshal(text, &pd) == nil {
			v, _ := directory.PodOf(&pd)
			for _, port := range v.Ports {
				checkPort(t, port.Number, port.Protocol)
			}
			for _, a := range v.Addrs {
				checkAddr(t, a)
			}
			checkTLS(t, v.Backend)
		}
		if json.Unmarshal(text, &n) == nil {
			v, _ := directory.NodeOf(&n)
			for _, a := range v.Addrs {
				if a.Address == "" {
					t.Error("an address of no text")
				}
			}
		}
	})
}

func checkService(t *testing.T, s *directory.Service) {
	for _, port := range s.Ports {
		checkPort(t, port.Number, port.Protocol)
	}
	for _, f := range s.Families {
		if f != service.IPv4 && f != service.IPv6 {
			t.Errorf("family %v", f)
		}
	}
	if s.Affinity < 0 || s.Affinity > 24*time.Hour {
		t.Errorf("affinity %v", s.Affinity)
	}
	checkTLS(t, s.Backend)
}

func checkSlice(t *testing.T, s *directory.Slice) {
	for _, port := range s.Ports {
		checkPort(t, port.Number, port.Protocol)
	}
	for _, e := range s.Endpoints {
		if checkAddr(t, e.Addr); service.FamilyOf(e.Addr) != s.Family {
			t.Errorf("%v in a slice of %v", e.Addr, s.Family)
		}
	}
	if s.Service.Name == "" || s.Service.Namespace != s.Name.Namespace {
		t.Errorf("slice %v of %v", s.Name, s.Service)
	}
}

func checkPort(t *testing.T, n uint16, protocol service.Protocol) {
	if n == 0 || protocol != service.TCP && protocol != service.UDP && protocol != service.SCTP {
		t.Errorf("port %d/%v", n, protocol)
	}
}

func checkAddr(t *testing.T, a netip.Addr) {
	if !a.IsValid() || a.Is4In6() || a.Zone() != "" || a.IsUnspecified() || a.IsMulticast() {
		t.Errorf("address %v", a)
	}
}

func checkTLS(t *testing.T, b directory.BackendTLS) {
	if b.CA != "" && b.CA != directory.InvalidCA && !x509.NewCertPool().AppendCertsFromPEM([]byte(b.CA)) {
		t.Errorf("unusable: %q", b.CA)
	}
}
