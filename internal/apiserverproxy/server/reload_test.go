package server_test

import (
	"context"
	"crypto/tls"
	"crypto/x509/pkix"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/apiserverproxy/server"
)

// TestCertificatesAreFollowed replaces the front-proxy certificate, that of the port, and the authority of clients.
func TestCertificatesAreFollowed(t *testing.T) {
	s := newStage(t, func(s *stage, _ *frontConfig) {
		s.options.Authentication.ClientCert.ClientCA = write(t, t.TempDir(), "ca.crt", s.clients.pem)
	})
	s.api.mu.Lock()
	s.api.config["requestheader-allowed-names"] = "[]"
	s.api.mu.Unlock()
	bob := s.clients.pair(t, pkix.Name{CommonName: "bob"})
	c := s.client(t, bob, 1)
	do(t, c, http.MethodGet, s.url+"/version", nil, nil)
	if got := s.api.one(t); got.Peer != "front-proxy-client" {
		t.Fatalf("at first: %q", got.Peer)
	}
	cert, key := s.proxies.sign(t, pkix.Name{CommonName: "second"}, time.Hour)
	replace(t, s.options.ProxyClientCertFile, cert)
	replace(t, s.options.ProxyClientKeyFile, key)
	cert, key = s.serving.sign(t, pkix.Name{CommonName: "renewed"}, time.Hour)
	replace(t, s.options.Serving.ServerCert.CertKey.CertFile, cert)
	replace(t, s.options.Serving.ServerCert.CertKey.KeyFile, key)
	waitFor(t, func() bool {
		do(t, c, http.MethodGet, s.url+"/version", nil, nil)
		return s.api.one(t).Peer == "second" // on new connections, though the old ones were kept open
	})
	conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{RootCAs: s.serving.pool()})
	if err != nil {
		t.Fatal(err)
	}
	conn.Close()
	if got := conn.ConnectionState().PeerCertificates[0].Subject.CommonName; got != "renewed" {
		t.Errorf("the port shows the certificate of %q", got)
	}
	replace(t, s.options.ProxyClientCertFile, []byte("nonsense"))
	other := newAuthority(t, "others")
	replace(t, s.options.Authentication.ClientCert.ClientCA, other.pem)
	waitFor(t, func() bool { // on the connection that was good before
		resp, _ := do(t, c, http.MethodGet, s.url+"/version", nil, nil)
		return resp.StatusCode == http.StatusUnauthorized
	})
	s.api.take()
	do(t, s.client(t, other.pair(t, pkix.Name{CommonName: "carol"}), 1), http.MethodGet, s.url+"/version", nil, nil)
	if got := s.api.one(t); got.Peer != "second" || got.Header.Get("X-Remote-User") != "carol" {
		t.Errorf("after files that cannot be used: %+v", got)
	}
}

// replace writes a file as programs that care do it.
func replace(t *testing.T, name string, content []byte) {
	t.Helper()
	if err := os.WriteFile(name+".new", content, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(name+".new", name); err != nil {
		t.Fatal(err)
	}
}

func TestStartNeedsTheConfiguration(t *testing.T) {
	clients, proxies := newAuthority(t, "clients"), newAuthority(t, "proxies")
	a := newAPI(t, clients, proxies)
	a.forbid = true
	for name, c := range map[string]struct {
		edit func(*server.FrontOptions)
		want string // in the error; empty: it starts
	}{
		"may not read the ConfigMap": {func(*server.FrontOptions) {}, "bind the Role kube-system/extension-apiserver-authentication-reader"},
		"tolerates that":             {func(o *server.FrontOptions) { o.Authentication.TolerateInClusterLookupFailure = true }, ""},
		"does not look":              {func(o *server.FrontOptions) { o.Authentication.SkipInClusterLookup = true }, ""},
		"a file that is not there": {func(o *server.FrontOptions) {
			o.Authentication.SkipInClusterLookup = true
			o.Authentication.ClientCert.ClientCA = "/nowhere"
		}, "--client-ca-file"},
		"no certificate": {func(o *server.FrontOptions) {
			o.ProxyClientCertFile, o.ProxyClientKeyFile = "/nowhere", "/nowhere"
		}, "read the front-proxy certificate"},
		"half a serving certificate": {func(o *server.FrontOptions) {
			o.Serving.ServerCert.CertKey.CertFile, o.Serving.ServerCert.CertKey.KeyFile = "/nowhere", "/nowhere"
		}, "--tls-cert-file"},
		"an unknown version of TLS": {func(o *server.FrontOptions) {
			o.Authentication.SkipInClusterLookup = true
			o.Serving.MinTLSVersion = "TLS9"
		}, "--tls-min-version"},
	} {
		t.Run(name, func(t *testing.T) {
			o := server.NewFrontOptions()
			o.Serving.BindPort, o.DrainTimeout = freePort(t), 0
			c.edit(o)
			f, err := server.NewFront(server.FrontConfig{Options: o, Kubeconfig: a.kubeconfig(), IsProxy: isProxy, Log: quiet(), Proxy: passOn})
			if err != nil {
				t.Fatal(err)
			}
			ctx, cancel := context.WithCancel(t.Context())
			defer cancel()
			ended := make(chan error, 1)
			go func() { ended <- f.Run(ctx) }()
			if c.want == "" {
				waitFor(t, func() bool { return f.Ready() == nil })
				cancel()
			}
			err = <-ended
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("error %v, want %q", err, c.want)
			}
		})
	}
}

// TestStartWaitsForTheAPIServer starts before the API server does.
func TestStartWaitsForTheAPIServer(t *testing.T) {
	a := newAPI(t, newAuthority(t, "clients"), newAuthority(t, "proxies"))
	config := a.kubeconfig()
	a.Close()
	o := server.NewFrontOptions()
	o.Serving.BindPort = freePort(t)
	log := &records{}
	f, err := server.NewFront(server.FrontConfig{Options: o, Kubeconfig: config, IsProxy: isProxy, Log: logTo(log), Proxy: passOn})
	if err != nil {
		t.Fatal(err)
	}
	stop := run(t, f.Run)
	waitFor(t, func() bool {
		return strings.Contains(log.String(), "waiting for the cluster's authentication configuration")
	})
	if f.Ready() == nil {
		t.Error("it is ready")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}
