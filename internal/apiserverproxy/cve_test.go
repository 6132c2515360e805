package apiserverproxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"

	"varco.dev/internal/apiserverproxy"
)

// TestCVE20181002105 wants no pipe to be left of an upgrade that failed: what the client sends next is a request of its own.
func TestCVE20181002105(t *testing.T) {
	var seen atomic.Int32
	s, _ := with(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/secret" {
			seen.Add(1)
		}
		http.Error(w, "no upgrade", http.StatusForbidden)
	})
	conn, err := net.Dial("tcp", s.ours.Listener.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
	raw := wantsUpgrade(service+"/x") + "GET /secret HTTP/1.1\nHost: target\nX-Remote-User: root\n\n"
	if _, err := io.WriteString(conn, strings.ReplaceAll(raw, "\n", "\r\n")); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for _, want := range []int{http.StatusForbidden, http.StatusTeapot} { // the second is for what is behind us: not a proxy path
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			if want == http.StatusTeapot {
				break // the connection was closed: as good
			}
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		if resp.StatusCode != want {
			t.Errorf("got %d, want %d", resp.StatusCode, want)
		}
	}
	if seen.Load() != 0 {
		t.Error("the target got what was sent after the upgrade had failed")
	}
}

// nodeAt is a node with addresses of a type.
func nodeAt(kind corev1.NodeAddressType, addresses ...string) *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", UID: "uid-node"}}
	n.Status.DaemonEndpoints.KubeletEndpoint.Port = 10250
	for _, a := range addresses {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: kind, Address: a})
	}
	return n
}

// TestCVE20181002102 (and CVE-2020-8559) wants a kubelet's redirect to be handed back: nobody follows it with the proxy's
// credentials, be it the answer to a request or to an upgrade.
func TestCVE20181002102(t *testing.T) {
	s := newStage(t, []runtime.Object{nodeAt(corev1.NodeInternalIP, "10.0.0.1")})
	var followed atomic.Int32
	s.target("10.0.0.2:10250", func(http.ResponseWriter, *http.Request) { followed.Add(1) }, overTLS)
	s.target("10.0.0.1:10250", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "https://10.0.0.2:10250/exec/x", http.StatusFound)
	}, overTLS)
	if a := s.get("/api/v1/nodes/node-1/proxy/logs/"); a.code != 302 || a.header.Get("Location") != "https://10.0.0.2:10250/exec/x" {
		t.Errorf("got %d %v\n%s", a.code, a.header, a.body)
	}
	if a := s.ask(s.ours, wantsUpgrade("/api/v1/nodes/node-1/proxy/logs/x")); a.code != 500 || a.header.Get("Location") != "" {
		t.Errorf("an upgrade got %d %v %s", a.code, a.header, a.body)
	}
	if followed.Load() != 0 {
		t.Error("the redirect was followed")
	}
}

// TestCVE20208555 (and CVE-2020-8562, CVE-2022-3294) wants no object to lead to addresses that are the API server's own
// world: the loopback interface, the link and what is served there, the API server itself.
func TestCVE20208555(t *testing.T) {
	for _, address := range []string{
		"127.0.0.1", "127.8.8.8", "0.0.0.0", "169.254.169.254", "224.0.0.1", "255.255.255.255", "::1", "::", "fe80::1", "ff02::1",
		"::ffff:127.0.0.1", "::ffff:169.254.169.254", "fd00:ec2::254",
	} {
		objects := []runtime.Object{pod("a", address, "=80"), nodeAt(corev1.NodeInternalIP, address)}
		s := newStage(t, append(objects, web([]string{"=80"}, pod("web-a", address))...))
		for _, path := range []string{
			"/api/v1/namespaces/ns/pods/a/proxy/", "/api/v1/namespaces/ns/pods/a:9/proxy/", service + "/",
			"/api/v1/nodes/node-1/proxy/", "/api/v1/nodes/http:node-1:80/proxy/", "/api/v1/nodes/node-1:10250/proxy/",
		} {
			for _, raw := range []string{simple("GET", path), wantsUpgrade(path)} {
				if a := s.ask(s.ours, raw); a.code != 400 && a.code != 503 || !strings.Contains(a.body, "not allowed") && !strings.Contains(a.body, "no endpoints") {
					t.Errorf("%s at %s: got %d %s", path, address, a.code, a.body)
				}
			}
		}
	}
}

// TestKubeletCredentials wants a node that calls an API server's port its kubelet's to get nothing: the credentials for kubelets
// are an administrator's at the API server, which may serve at addresses that nobody has told.
func TestKubeletCredentials(t *testing.T) {
	node := nodeAt(corev1.NodeInternalIP, "10.0.0.1")
	node.Status.DaemonEndpoints.KubeletEndpoint.Port = 6443
	s := newStage(t, []runtime.Object{node}, func(c *apiserverproxy.Config) {
		c.Outbound.Own = func() []netip.AddrPort { return []netip.AddrPort{netip.MustParseAddrPort("10.9.9.9:6443")} }
	})
	s.target("10.0.0.1:6443", echo, overTLS)
	for _, raw := range []string{simple("GET", "/api/v1/nodes/node-1/proxy/"), simple("GET", "/api/v1/nodes/node-1:6443/proxy/"), wantsUpgrade("/api/v1/nodes/node-1/proxy/")} {
		if a := s.ask(s.ours, raw); a.code != 400 || !strings.Contains(a.body, "no credentials for kubelets") {
			t.Errorf("%q: got %d %s", raw, a.code, a.body)
		}
	}
}

// TestCVE20208562 wants a name to be looked at as it is dialled: a node whose name is this machine is refused.
func TestCVE20208562(t *testing.T) {
	s := newStage(t, []runtime.Object{nodeAt(corev1.NodeHostName, "localhost")})
	for _, path := range []string{"/api/v1/nodes/node-1/proxy/", "/api/v1/nodes/node-1:80/proxy/"} {
		if a := s.get(path); a.code != 400 || strings.Count(a.body, "address not allowed") != 1 {
			t.Errorf("%s: got %d %s", path, a.code, a.body)
		}
	}
}

// TestCVE20223172 wants answers to pass the aggregation layer, which turns redirects with a Location into errors since then, in
// a form that no client follows with its credentials by itself; and to be left alone by it otherwise.
func TestCVE20223172(t *testing.T) {
	s := newStage(t, oneWeb(), func(c *apiserverproxy.Config) {
		c.Aggregated, c.Base = true, apiserverproxy.BaseAggregated
	})
	s.target("10.1.0.1:80", func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Type", "text/html; charset=utf-8")
		w.Header().Set("Location", "/login")
		switch r.URL.Path {
		case "/made/here":
			w.WriteHeader(http.StatusCreated)
		case "/by/host":
			w.Header().Set("Location", "http://"+r.Host+"/login")
			w.WriteHeader(http.StatusFound)
		default:
			w.WriteHeader(http.StatusFound)
		}
	})
	aggregated := strings.Replace(service, apiserverproxy.BaseCore, apiserverproxy.BaseAggregated, 1)
	for path, want := range map[string]string{
		aggregated + "/":  fmt.Sprintf(`302 "" "0; url=%s/login" "text/HTML; charset=utf-8"`, aggregated),
		aggregated + "?a": fmt.Sprintf(`301 "" "0; url=%s/?a" ""`, aggregated),
		// The layer asks for our own address, which no client reaches.
		aggregated + "/by/host":   fmt.Sprintf(`302 "" "0; url=%s/login" "text/HTML; charset=utf-8"`, aggregated),
		aggregated + "/made/here": fmt.Sprintf(`201 "../../../../../../../../..%s/login" "" "text/HTML; charset=utf-8"`, aggregated),
	} {
		a := s.get(path)
		got := fmt.Sprintf("%d %q %q %q", a.code, a.header.Get("Location"), a.header.Get("Refresh"), a.header.Get("Content-Type"))
		if got != want {
			t.Errorf("%s: got\n%s, want\n%s", path, got, want)
		}
	}
}
