package locate_test

import (
	"testing"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiwatch/directory"
)

func node(kubelet uint16, addresses ...string) *directory.Node {
	n := &directory.Node{Name: "node0", KubeletPort: kubelet}
	for i := 0; i < len(addresses); i += 2 {
		n.Addrs = append(n.Addrs, directory.NodeAddress{Type: addresses[i], Address: addresses[i+1]})
	}
	return n
}

// The cases are those of upstream's TestResourceLocation of nodes.
func TestNodeUpstream(t *testing.T) {
	for name, c := range map[string]struct {
		node        *directory.Node
		query, want string // "": address not allowed
	}{
		"proxyable hostname with default port":               {node(0, "InternalIP", "10.0.0.1"), "node0", "https://10.0.0.1:10250"},
		"proxyable hostname with kubelet port in query":      {node(0, "InternalIP", "10.0.0.1"), "node0:5000", "http://10.0.0.1:5000"},
		"proxyable hostname with kubelet port in status":     {node(5000, "InternalIP", "10.0.0.1"), "node0", "https://10.0.0.1:5000"},
		"non-proxyable hostname with default port":           {node(0, "InternalIP", "127.0.0.1"), "node0", ""},
		"non-proxyable hostname with kubelet port in query":  {node(0, "InternalIP", "127.0.0.1"), "node0:5000", ""},
		"non-proxyable hostname with kubelet port in status": {node(443, "InternalIP", "127.0.0.1"), "node0", ""},
	} {
		t.Run(name, func(t *testing.T) {
			d, err := find(t, locate.New(locate.Config{}, newWorld(c.node)), address.Node, c.query)
			if c.want == "" {
				refused(t, name, err, 400, "address not allowed")
			} else if err != nil || url(d) != c.want {
				t.Errorf("error %v, %+v", err, d)
			}
		})
	}
}

// The kubelet's port is the kubelet whatever the scheme and however the port is written; others are as the URL says.
func TestNodePorts(t *testing.T) {
	l := locate.New(locate.Config{}, newWorld(node(10255, "InternalIP", "10.0.0.1")))
	for query, want := range map[string]struct {
		url     string
		kubelet bool
	}{
		"node0":             {"https://10.0.0.1:10255", true},
		"node0:":            {"https://10.0.0.1:10255", true},
		"node0:10255":       {"https://10.0.0.1:10255", true},
		"http:node0:":       {"https://10.0.0.1:10255", true},
		"http:node0:10255":  {"https://10.0.0.1:10255", true},
		"https:node0:10255": {"https://10.0.0.1:10255", true},
		"node0:010255":      {"https://10.0.0.1:10255", true},
		"node0:10250":       {"http://10.0.0.1:10250", false},
		"https:node0:10250": {"https://10.0.0.1:10250", false},
		"http:node0:9100":   {"http://10.0.0.1:9100", false},
		"node0:http":        {"http://10.0.0.1:80", false},
		"https:node0:https": {"https://10.0.0.1:443", false},
	} {
		d, err := find(t, l, address.Node, query)
		if err != nil || url(d) != want.url || d.Kubelet != want.kubelet {
			t.Errorf("%s: error %v, %+v", query, err, d)
		}
	}
	for _, port := range []string{"0", "65536", "kubelet", "-1"} {
		_, err := find(t, l, address.Node, "node0:"+port)
		refused(t, port, err, 503, `no port "`+port+`" found for node "node0"`)
	}
	_, err := find(t, l, address.Node, "node1")
	refused(t, "unknown", err, 404, `nodes "node1" not found`)
}

func TestNodeAddresses(t *testing.T) {
	all := []string{"ExternalIP", "192.0.2.1", "ExternalDNS", "n.example", "InternalIP", "10.0.0.1", "InternalIP", "10.0.0.2",
		"InternalDNS", "n.internal", "Hostname", "n"}
	for name, c := range map[string]struct {
		types     []string
		addresses []string
		want      string
	}{
		"the default prefers the host name": {nil, all, "https://n:10250"},
		"then the internal name":            {nil, all[:10], "https://n.internal:10250"},
		"then the first internal address":   {nil, all[:8], "https://10.0.0.1:10250"},
		"then the external name":            {nil, all[:4], "https://n.example:10250"},
		"then the external address":         {nil, all[:2], "https://192.0.2.1:10250"},
		"as configured":                     {[]string{"ExternalIP", "Hostname"}, all, "https://192.0.2.1:10250"},
		"a host name that is an address":    {nil, []string{"Hostname", "fd00::1"}, "https://[fd00::1]:10250"},
	} {
		l := locate.New(locate.Config{NodeAddressTypes: c.types}, newWorld(node(0, c.addresses...)))
		if d, err := find(t, l, address.Node, "node0"); err != nil || url(d) != c.want || (d.Host != "") != (len(d.Endpoints) == 0) {
			t.Errorf("%s: error %v, %+v", name, err, d)
		}
	}
	l := locate.New(locate.Config{NodeAddressTypes: []string{"Hostname"}}, newWorld(node(0, "InternalIP", "10.0.0.1")))
	_, err := find(t, l, address.Node, "node0")
	refused(t, "none", err, 500, "no preferred addresses found; known addresses: [{InternalIP 10.0.0.1}]")
}

// A node writes its own addresses: none may lead to this machine, or become another part of a URL than its host
// (CVE-2020-8555, CVE-2022-3294).
func TestNodeAddressRefused(t *testing.T) {
	for _, addr := range []string{"127.0.0.1", "::1", "::ffff:127.0.0.1", "169.254.169.254", "fe80::1", "fe80::1%lo", "0.0.0.0",
		"::", "224.0.0.1", "255.255.255.255", "", "a:80", "a/b", "user@a", "a?b", "a#b", "[::1]", "a b", "a%2fb", "a\x00"} {
		l := locate.New(locate.Config{}, newWorld(node(0, "Hostname", addr, "InternalIP", "10.0.0.1")))
		_, err := find(t, l, address.Node, "node0")
		refused(t, addr, err, 400, "address not allowed")
	}
}

func TestNodeDestination(t *testing.T) {
	w := newWorld(node(0, "InternalIP", "10.0.0.1"))
	l := locate.New(locate.Config{KubeletPort: 10350}, w)
	got, err := find(t, l, address.Node, "node0")
	want := &locate.Destination{Kind: address.Node, Name: "node0", Port: "10350", Key: "node//node0/:10350/https",
		Scheme: locate.HTTPS, Kubelet: true, Endpoints: []locate.Endpoint{{Addr: addrPort("10.0.0.1:10350"), Node: "node0"}}}
	if d := cmp.Diff(want, got, compared()); d != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, d)
	}
	w.put(node(0, "InternalIP", "10.0.0.1")) // a node's status is written every few minutes
	if again, _ := find(t, l, address.Node, "node0"); again != got {
		t.Error("computed again though nothing changed")
	}
	w.put(node(0, "InternalIP", "10.0.0.2"))
	if d, err := find(t, l, address.Node, "node0"); err != nil || url(d) != "https://10.0.0.2:10350" {
		t.Errorf("after a change: error %v, %+v", err, d)
	}
	if d, err := find(t, l, address.Node, "node0:10350"); err != nil || !d.Kubelet {
		t.Errorf("before the kubelet moves: error %v, %+v", err, d)
	}
	w.put(node(1, "InternalIP", "10.0.0.2"))
	if d, err := find(t, l, address.Node, "node0:10350"); err != nil || d.Kubelet {
		t.Errorf("after the kubelet moved: error %v, %+v", err, d)
	}
}
