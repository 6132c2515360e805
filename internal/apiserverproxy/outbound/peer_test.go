package outbound_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"strings"
	"sync"
	"testing"

	"varco.dev/internal/apiserverproxy/outbound"
)

// TestProfilesAreBounded asks for more profiles than are remembered. The oldest goes, with its connections; whoever has
// it can still use it.
func TestProfilesAreBounded(t *testing.T) {
	server := newTarget(t, describe, withTLS)
	o := loose(t, outbound.Config{})
	profile := func(i int) outbound.Profile {
		return outbound.Profile{Scheme: "https", ServerName: fmt.Sprint("web-", i)}
	}
	ask := func(i int) {
		t.Helper()
		if _, err := send(o.RoundTripper(profile(i)), request(t, "GET", server.URL, "")); err != nil {
			t.Error(err)
		}
	}
	first, used := o.RoundTripper(profile(-1)), o.RoundTripper(profile(-2))
	if _, err := send(first, request(t, "GET", server.URL, "")); err != nil {
		t.Fatal(err)
	}
	ask(-2)
	for i := range outbound.MaxProfiles - 2 {
		o.RoundTripper(profile(i))
	}
	ask(-2)
	if all, open := server.connections(); all != 2 || open != 2 || o.Profiles() != outbound.MaxProfiles {
		t.Errorf("%d connections, %d open, %d profiles", all, open, o.Profiles())
	}
	o.RoundTripper(profile(-3))
	until(t, "the oldest one's connection is closed", func() bool { _, open := server.connections(); return open == 1 })
	if o.Profiles() != outbound.MaxProfiles || o.RoundTripper(profile(-2)) != used {
		t.Errorf("%d profiles, and another one than the oldest has gone", o.Profiles())
	}
	if _, err := send(first, request(t, "GET", server.URL, "")); err != nil {
		t.Error(err)
	}
}

// TestProfilesThatAreTheSame share connections though they differ in what does not count.
func TestProfilesThatAreTheSame(t *testing.T) {
	o := loose(t, outbound.Config{})
	if o.RoundTripper(outbound.Profile{Scheme: "http"}) != o.RoundTripper(outbound.Profile{Scheme: "http", CA: "x", ServerName: "y"}) {
		t.Error("http by a name is another profile")
	}
	if o.RoundTripper(outbound.Profile{Kubelet: true}) != o.RoundTripper(outbound.Profile{Kubelet: true, Scheme: "http"}) {
		t.Error("the kubelet's scheme counts")
	}
	if o.RoundTripper(outbound.Profile{Scheme: "https"}) == o.RoundTripper(outbound.Profile{Kubelet: true}) {
		t.Error("a kubelet is a target like others")
	}
}

// askTarget is the variable that makes the test binary send a request to the URL that it has, see TestEnvironmentProxies.
const askTarget = "VARCO_TEST_ASK"

// TestEnvironmentProxies sets the variables that name proxies, which net/http reads once in a process: another one has to
// do it.
func TestEnvironmentProxies(t *testing.T) {
	proxy := newTarget(t, describe, plain)
	for _, scheme := range []string{"http", "https"} {
		server := newTarget(t, describe, map[string]func(*httptest.Server) bool{"http": plain, "https": withTLS}[scheme])
		self, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(self, "-test.run=^TestAskTarget$", "-test.v")
		cmd.Env = append(os.Environ(), askTarget+"="+server.URL)
		for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"} {
			cmd.Env = append(cmd.Env, name+"="+proxy.URL)
		}
		cmd.Env = append(cmd.Env, "NO_PROXY=", "no_proxy=")
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), "asked "+server.URL) {
			t.Errorf("%v: %s", err, out)
		}
		if all, _ := server.connections(); all == 0 {
			t.Error("the target was not asked")
		}
	}
	if all, _ := proxy.connections(); all != 0 {
		t.Errorf("%d connections to the environment's proxy", all)
	}
}

// TestAskTarget asks the target of askTarget, or one of its own, on each lane. Go never uses proxies for loopback, so
// that the target has another name here.
func TestAskTarget(t *testing.T) {
	url := os.Getenv(askTarget)
	if url == "" {
		url = newTarget(t, describe, plain).URL
	}
	scheme, address, _ := strings.Cut(url, "://")
	_, port, _ := strings.Cut(address, ":")
	dns, resolver := newNames(t)
	dns.set("node.test", "127.0.0.1")
	o := loose(t, outbound.Config{Resolver: resolver})
	p := outbound.Profile{Scheme: scheme}
	for _, rt := range []http.RoundTripper{o.RoundTripper(p), o.Upgrade(p), asGRPC{o.RoundTripper(p)}} {
		if _, err := send(rt, request(t, "GET", scheme+"://node.test:"+port, "")); err != nil {
			t.Error(err)
		}
	}
	t.Log("asked", url)
}

// TestManyAtOnce uses everything together, for the race detector.
func TestManyAtOnce(t *testing.T) {
	servers := map[string]*target{"http": newTarget(t, describe, plain), "https": newTarget(t, describe, withHTTP2), "h2c": newTarget(t, describe, withH2C)}
	o := loose(t, outbound.Config{IdleTimeout: patience})
	var all sync.WaitGroup
	for i := range 16 {
		for scheme, server := range servers {
			all.Go(func() {
				for j := range 20 {
					p := outbound.Profile{Scheme: scheme, ServerName: fmt.Sprint("web-", (i+j)%5)}
					rt := http.RoundTripper(o.RoundTripper(p))
					if j%3 == 0 {
						rt = asGRPC{rt}
					}
					if _, err := send(rt, request(t, "POST", server.URL, "body")); err != nil {
						t.Error(err)
					}
				}
			})
		}
	}
	all.Wait()
}
