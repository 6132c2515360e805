package server_test

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/apiserverproxy/server"
)

// TestDrainsTheProxysOwn has the handler of the proxy keep something open that net/http knows nothing of: the server waits for
// it, and is not ready meanwhile. What is still open when the time is over is left to the handler.
func TestDrainsTheProxysOwn(t *testing.T) {
	began, ends := make(chan context.Context), make(chan struct{})
	s := newStage(t, func(_ *stage, c *frontConfig) {
		c.Drain = func(ctx context.Context) error {
			began <- ctx
			<-ends
			return errors.New("one was cut")
		}
	})
	ended := make(chan error, 1)
	go func() { ended <- s.stop() }()
	ctx := <-began
	if deadline, ok := ctx.Deadline(); !ok || time.Until(deadline) > s.options.DrainTimeout {
		t.Errorf("it may take until %v", deadline)
	}
	if s.Ready() == nil {
		t.Error("it is ready while it ends")
	}
	select {
	case err := <-ended:
		t.Errorf("it did not wait: %v", err)
	default:
	}
	close(ends)
	if err := <-ended; err != nil {
		t.Error(err)
	}
	if !strings.Contains(s.log.String(), "one was cut") {
		t.Errorf("the log does not say what was cut: %s", s.log)
	}
}

// TestFrontProxyCertificateOfAClient gives the front a certificate that the API server takes for a client's. With it, that client's
// rights would be everybody's.
func TestFrontProxyCertificateOfAClient(t *testing.T) {
	for name, c := range map[string]struct {
		by      func(*stage) *authority
		subject string
		code    int
	}{
		"a front proxy": {func(s *stage) *authority { return s.proxies }, "front-proxy-client", 200},
		"a client":      {func(s *stage) *authority { return s.clients }, "admin", 403},
		"a client with the name of a front proxy": {func(s *stage) *authority { return s.clients }, "front-proxy-client", 403},
		"unknown to the API server":               {func(*stage) *authority { return newAuthority(t, "others") }, "front-proxy-client", 200}, // it heeds nothing then
	} {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, func(s *stage, _ *frontConfig) {
				cert, key := c.by(s).sign(t, pkix.Name{CommonName: c.subject}, time.Hour)
				replace(t, s.options.ProxyClientCertFile, cert)
				replace(t, s.options.ProxyClientKeyFile, key)
			})
			bob := s.client(t, s.clients.pair(t, pkix.Name{CommonName: "bob"}), 1)
			for range 2 {
				resp, body := do(t, bob, http.MethodGet, s.url+"/version", nil, nil)
				if resp.StatusCode != c.code || c.code == 403 && !strings.Contains(body, "--proxy-client-cert-file") {
					t.Errorf("answer %d %s, want %d", resp.StatusCode, body, c.code)
				}
			}
			if got := s.api.take(); c.code != 200 && len(got) > 0 {
				t.Errorf("the API server got %+v", got)
			}
			if logged := strings.Count(s.log.String(), "client certificates are not carried over"); logged != (c.code-200)/203 {
				t.Errorf("logged %d times", logged)
			}
			if resp, body := do(t, s.client(t, nil, 1), http.MethodGet, s.url+"/version", bearer("alice"), nil); resp.StatusCode != http.StatusOK {
				t.Errorf("with a token: answer %d %s", resp.StatusCode, body)
			}
		})
	}
}

// TestFrontWantsTLS has an API server, or another proxy with an account of its own, without TLS.
func TestFrontWantsTLS(t *testing.T) {
	a := newAPI(t, newAuthority(t, "clients"), newAuthority(t, "proxies"))
	config := a.kubeconfig()
	config.Host = "http://127.0.0.1:8001"
	config.CAData = nil
	_, err := server.NewFront(server.FrontConfig{Options: server.NewFrontOptions(), Kubeconfig: config, IsProxy: isProxy, Log: quiet(), Proxy: passOn})
	if err == nil || !strings.Contains(err.Error(), "http://127.0.0.1:8001 is not of https") {
		t.Errorf("error %v", err)
	}
}

// TestHandlerBeforeRun asks a server that does not run.
func TestHandlerBeforeRun(t *testing.T) {
	a := newAPI(t, newAuthority(t, "clients"), newAuthority(t, "proxies"))
	f, err := server.NewFront(server.FrontConfig{Options: server.NewFrontOptions(), Kubeconfig: a.kubeconfig(), IsProxy: isProxy, Log: quiet(), Proxy: passOn})
	if err != nil {
		t.Fatal(err)
	}
	w := httptest.NewRecorder()
	f.Handler().ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/version", nil))
	if w.Code != http.StatusServiceUnavailable {
		t.Errorf("answer %d %s", w.Code, w.Body)
	}
}

// TestRefusedHereIsAuditedHere sends certificates that nobody knows on paths that are passed on: the API server does not see
// them. What looks like a token, but is none, makes no stranger anonymous.
func TestRefusedHereIsAuditedHere(t *testing.T) {
	log := filepath.Join(t.TempDir(), "audit.log")
	s := newStage(t, func(s *stage, _ *frontConfig) {
		s.options.Audit.PolicyFile = write(t, t.TempDir(), "policy", []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"))
		s.options.Audit.LogOptions.Path = log
	})
	c := s.client(t, newAuthority(t, "clients").pair(t, pkix.Name{CommonName: "bob"}), 2)
	for i, header := range []http.Header{nil, {"Authorization": {"Bearer  two-spaces"}}, {"Authorization": {"Bearer "}}} {
		path := fmt.Sprintf("/api/v1/nodes/%d", i)
		resp, body := do(t, c, http.MethodGet, s.url+path, header, nil)
		if resp.StatusCode != http.StatusUnauthorized || resp.Header.Get("Audit-Id") == "" {
			t.Errorf("%v: answer %d %v %s", header, resp.StatusCode, resp.Header, body)
		}
		waitFor(t, func() bool {
			written, err := os.ReadFile(log)
			return err == nil && strings.Contains(string(written), path+`"`)
		})
	}
	if got := s.api.take(); len(got) > 0 {
		t.Errorf("the API server got %+v", got)
	}
}

// TestPortSharing opens the same port twice, as --permit-port-sharing permits.
func TestPortSharing(t *testing.T) {
	a := newAPI(t, newAuthority(t, "clients"), newAuthority(t, "proxies"))
	port := freePort(t)
	for range 2 {
		o := server.NewFrontOptions()
		o.Serving.BindAddress, o.Serving.BindPort, o.Serving.PermitPortSharing = net.IPv4(127, 0, 0, 1), port, true
		f, err := server.NewFront(server.FrontConfig{Options: o, Kubeconfig: a.kubeconfig(), IsProxy: isProxy, Log: quiet(), Proxy: passOn})
		if err != nil {
			t.Fatal(err)
		}
		run(t, f.Run)
		waitFor(t, func() bool { return f.Ready() == nil })
	}
	conn, err := tls.Dial("tcp", fmt.Sprintf("127.0.0.1:%d", port), &tls.Config{InsecureSkipVerify: true})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	_, _ = io.WriteString(conn, "GET /version HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n")
	if line, err := bufio.NewReader(conn).ReadString('\n'); err != nil || line != "HTTP/1.1 200 OK\r\n" {
		t.Errorf("answer %q, error %v", line, err)
	}
}
