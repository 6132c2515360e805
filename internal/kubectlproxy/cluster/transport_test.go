package cluster_test

import (
	"fmt"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"testing"

	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
	kubectl "k8s.io/kubectl/pkg/proxy"
)

// everyLane sends a request over each transport.
func everyLane(t *testing.T, s *stage) {
	t.Helper()
	if got := answer(t, s.get(""), get("/x")); got != "200 HTTP/1.1 GET /x" {
		t.Errorf("ordinary: %s", got)
	}
	resp, err := ask(t, s.get(""), get("/x?watch=1"), true)
	if err != nil {
		t.Fatal(err)
	}
	if got := firstLine(t, resp.Body); got != "HTTP/2.0 event\n" {
		t.Errorf("watch: %s", got)
	}
	resp.Body.Close()
	if got := echo(t, s.get(""))("hello"); got != "echo hello" {
		t.Errorf("upgrade: %s", got)
	}
}

// TestProxyURL reaches the API server by a name that only the proxy knows. kubectl proxy does not use it for upgrades
// (https://github.com/kubernetes/kubernetes/issues/120318).
func TestProxyURL(t *testing.T) {
	for name, tt := range map[string]struct {
		scheme string
		open   func(a *api, t *testing.T) *middle
	}{
		"http":   {"http", func(a *api, t *testing.T) *middle { return newMiddle(t, a, connect) }},
		"https":  {"https", func(a *api, t *testing.T) *middle { return newMiddle(t, a, connect, a.TLS) }},
		"socks5": {"socks5", func(a *api, t *testing.T) *middle { return newMiddle(t, a, socks) }},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			m := tt.open(a, t)
			s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "one"}, func(s *stage) {
				s.file.Clusters["main"].Server = "https://example.com:" + port(a)
				s.file.Clusters["main"].ProxyURL = tt.scheme + "://" + m.addr()
			})
			a.accept("one")
			everyLane(t, s)
			want := "example.com:" + port(a)
			if got := m.hosts(); !slices.Equal(got, []string{want, want, want}) {
				t.Errorf("the proxy was asked for %q, want %q three times", got, want)
			}

			original, err := kubectl.NewProxyHandler("/", nil, s.get("").Config, 0, false)
			if err != nil {
				t.Fatal(err)
			}
			w := httptest.NewRecorder()
			original.ServeHTTP(w, upgradeRequest("/exec"))
			if got := len(m.hosts()); w.Code == 101 || got != 3 {
				t.Errorf("kubectl proxy answers an upgrade %d, over %d connections of the proxy", w.Code, got-3)
			}
		})
	}
}

// askEverything is the variable that makes the test binary use the kubeconfig that it names, see TestEnvironmentProxy.
const askEverything = "VARCO_TEST_ASK"

// TestEnvironmentProxy sets HTTPS_PROXY, which net/http reads once in a process: another one has to do it.
func TestEnvironmentProxy(t *testing.T) {
	a := newAPI(t)
	m := newMiddle(t, a, connect)
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "one"}, func(s *stage) {
		s.file.Clusters["main"].Server = "https://example.com:" + port(a)
	})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestEveryLane$")
	cmd.Env = append(os.Environ(), askEverything+"="+s.path, "HTTPS_PROXY=http://"+m.addr(), "NO_PROXY=")
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	want := "example.com:" + port(a)
	if got := m.hosts(); !slices.Equal(got, []string{want, want, want}) {
		t.Errorf("the proxy was asked for %q, want %q three times", got, want)
	}
}

// TestVerbose has client-go log all that it can: what it puts around its transports then must not be in the way of an
// upgrade, and no token may be in the log.
func TestVerbose(t *testing.T) {
	a := newAPI(t)
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "top-secret"})
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(self, "-test.run=^TestEveryLane$")
	cmd.Env = append(os.Environ(), askEverything+"="+s.path, verbosity+"=10")
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	if n := strings.Count(string(out), `"Response"`); n != 3 || strings.Contains(string(out), "top-secret") {
		t.Errorf("%d answers in the log, want 3:\n%s", n, out)
	}
}

// TestEveryLane sends a request over each transport, to an API server of its own or to that of askEverything.
func TestEveryLane(t *testing.T) {
	a := newAPI(t)
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "one"})
	if path := os.Getenv(askEverything); path != "" {
		s.path = path
	}
	everyLane(t, s)
	s.get("").Refresh() // asks which credential would be sent, and sends nothing
	if s.path == os.Getenv(askEverything) && len(a.requests()) > 0 {
		t.Error("the wrong server was asked")
	}
}

// TestServerNames verifies the server as the kubeconfig says, on each transport.
func TestServerNames(t *testing.T) {
	tests := []struct {
		name   string
		change func(c *clientcmdapi.Cluster)
		want   string
	}{
		{"tls-server-name", func(c *clientcmdapi.Cluster) { c.TLSServerName = "example.com" }, ""},
		{"another tls-server-name", func(c *clientcmdapi.Cluster) { c.TLSServerName = "other.example" }, "certificate is valid for"},
		{"insecure", func(c *clientcmdapi.Cluster) { c.CertificateAuthorityData, c.InsecureSkipTLSVerify = nil, true }, ""},
		{"unknown authority", func(c *clientcmdapi.Cluster) { c.CertificateAuthorityData = nil }, "unknown authority"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			s := newStage(t, newAPI(t), &clientcmdapi.AuthInfo{}, func(s *stage) { tt.change(s.file.Clusters["main"]) })
			if tt.want == "" {
				everyLane(t, s)
				return
			}
			for _, long := range []bool{false, true} {
				if _, err := ask(t, s.get(""), get("/x"), long); err == nil || !strings.Contains(err.Error(), tt.want) {
					t.Errorf("got %v, want %s", err, tt.want)
				}
			}
			if _, err := ask(t, s.get(""), upgradeRequest("/x"), false); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("upgrade: %v, want %s", err, tt.want)
			}
		})
	}
}

// TestConnections counts connections: 100 watches are one, and 64 clients at a time keep theirs, where client-go's own
// limit makes them dial again and again. Each kind of credential has its own layers around net/http's transport.
func TestConnections(t *testing.T) {
	for name, user := range map[string]func(*stage) *clientcmdapi.AuthInfo{
		"token": func(*stage) *clientcmdapi.AuthInfo { return &clientcmdapi.AuthInfo{Token: "one"} },
		"exec plugin": func(s *stage) *clientcmdapi.AuthInfo {
			p := newPlugin(s.t)
			p.givesToken("one")
			return p.user()
		},
		"files": func(s *stage) *clientcmdapi.AuthInfo {
			user := &clientcmdapi.AuthInfo{ClientCertificate: filepath.Join(s.dir, "crt"), ClientKey: filepath.Join(s.dir, "key")}
			certificate, key := pair(s.t, 1)
			put(s.t, user.ClientCertificate, certificate)
			put(s.t, user.ClientKey, key)
			c := s.file.Clusters["main"]
			c.CertificateAuthority = filepath.Join(s.dir, "ca")
			put(s.t, c.CertificateAuthority, string(c.CertificateAuthorityData))
			c.CertificateAuthorityData = nil
			return user
		},
	} {
		t.Run(name, func(t *testing.T) {
			a := newAPI(t)
			s := newStage(t, a, nil, func(s *stage) { s.file.AuthInfos["main"] = user(s) })
			countConnections(t, a, s)
		})
	}
}

func countConnections(t *testing.T, a *api, s *stage) {
	for range 100 {
		resp, err := ask(t, s.get(""), get("/x?watch=1"), true)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
	}
	if n := a.connections(); n != 1 {
		t.Errorf("100 watches have %d connections, want 1", n)
	}
	const clients = 64
	for range 10 {
		var all sync.WaitGroup
		a.mu.Lock()
		a.arrived, a.gate = make(chan struct{}, clients), make(chan struct{})
		a.mu.Unlock()
		for i := range clients {
			all.Go(func() {
				if got := answer(t, s.get(""), get(fmt.Sprint("/", i))); got[:3] != "200" {
					t.Error(got)
				}
			})
		}
		for range clients {
			<-a.arrived
		}
		close(a.gate)
		all.Wait()
	}
	if n := a.connections(); n != 1+clients {
		t.Errorf("%d clients made %d connections in ten rounds, want one each", clients, n-1)
	}
}
