package outbound_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/apiserverproxy/outbound"
	"varco.dev/internal/nettest"
)

// whoAsks answers with the client's certificate and token.
func whoAsks(w http.ResponseWriter, r *http.Request) {
	name := "nobody"
	if len(r.TLS.PeerCertificates) > 0 {
		name = r.TLS.PeerCertificates[0].Subject.CommonName
	}
	fmt.Fprintf(w, "%s %s %s", name, r.TLS.ServerName, r.Header.Get("Authorization"))
}

// asking is a kind of server that asks for client certificates, and has one of its own.
func asking(cert tls.Certificate) func(*httptest.Server) bool {
	return func(s *httptest.Server) bool {
		s.TLS = &tls.Config{Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert}
		return true
	}
}

// TestVerification is whom certificates are believed, on all lanes of TLS.
func TestVerification(t *testing.T) {
	dir := t.TempDir()
	ours, others := newAuthority(t, "ours"), newAuthority(t, "others")
	ca, otherCA := put(t, dir, "ca", ours.pem), put(t, dir, "others", others.pem)
	server := newTarget(t, whoAsks, asking(ours.pair("web.default.svc", "127.0.0.1")))
	const good, unknown, wrongName = "", "unknown authority", "not web.wrong"
	kubelet := outbound.Profile{Scheme: "https", Kubelet: true}
	tests := []struct {
		name    string
		config  outbound.Config
		profile outbound.Profile
		want    string // of the error
	}{
		{"nothing known", outbound.Config{}, outbound.Profile{Scheme: "https"}, good},
		{"nothing known, a name", outbound.Config{}, outbound.Profile{Scheme: "https", ServerName: "web.wrong"}, good},
		{"file", outbound.Config{CAFile: ca}, outbound.Profile{Scheme: "https"}, good},
		{"file and name", outbound.Config{CAFile: ca}, outbound.Profile{Scheme: "https", ServerName: "web.default.svc"}, good},
		{"file and wrong name", outbound.Config{CAFile: ca}, outbound.Profile{Scheme: "https", ServerName: "web.wrong"}, wrongName},
		{"file of others", outbound.Config{CAFile: otherCA}, outbound.Profile{Scheme: "https"}, unknown},
		{"the profile's own", outbound.Config{}, outbound.Profile{Scheme: "https", CA: ours.pem}, good},
		{"the profile's own before the file", outbound.Config{CAFile: otherCA}, outbound.Profile{Scheme: "https", CA: ours.pem}, good},
		{"the profile's own, of others", outbound.Config{CAFile: ca}, outbound.Profile{Scheme: "https", CA: others.pem}, unknown},
		{"the profile's own, wrong name", outbound.Config{}, outbound.Profile{Scheme: "https", CA: ours.pem, ServerName: "web.wrong"}, wrongName},
		{"the profile's own, unreadable", outbound.Config{}, outbound.Profile{Scheme: "https", CA: "x"}, "no certificate in PEM"},
		{"kubelet, nothing known", outbound.Config{}, kubelet, good},
		{"kubelet, the file of the others does not count", outbound.Config{CAFile: otherCA}, kubelet, good},
		{"kubelet", outbound.Config{Kubelet: outbound.KubeletConfig{CAFile: ca}}, kubelet, good},
		{"kubelet of others", outbound.Config{Kubelet: outbound.KubeletConfig{CAFile: otherCA}}, kubelet, unknown},
		{"kubelet's file does not count for others", outbound.Config{Kubelet: outbound.KubeletConfig{CAFile: otherCA}}, outbound.Profile{Scheme: "https"}, good},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			o := loose(t, tt.config)
			for lane, rt := range map[string]http.RoundTripper{
				"ordinary": o.RoundTripper(tt.profile), "gRPC": asGRPC{o.RoundTripper(tt.profile)}, "upgrade": o.Upgrade(tt.profile),
			} {
				_, err := send(rt, request(t, "GET", server.URL, ""))
				if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
					t.Errorf("%s: got %v, want %q", lane, err, tt.want)
				}
			}
		})
	}
}

// asGRPC sends all requests as gRPC does.
type asGRPC struct{ http.RoundTripper }

func (g asGRPC) RoundTrip(r *http.Request) (*http.Response, error) {
	r = r.Clone(r.Context())
	r.Header.Set("Content-Type", "application/grpc")
	return g.RoundTripper.RoundTrip(r)
}

// TestVersionsOfTLS has a target that speaks TLS 1.1 at most.
func TestVersionsOfTLS(t *testing.T) {
	server := newTarget(t, whoAsks, func(s *httptest.Server) bool {
		s.TLS = &tls.Config{MinVersion: tls.VersionTLS10, MaxVersion: tls.VersionTLS11}
		return true
	})
	o := loose(t, outbound.Config{})
	if got, err := send(o.RoundTripper(outbound.Profile{Scheme: "https"}), request(t, "GET", server.URL, "")); err == nil {
		t.Errorf("answered %q", got)
	}
}

// TestCredentials is who we are for kubelets, and for others.
func TestCredentials(t *testing.T) {
	dir := t.TempDir()
	ours := newAuthority(t, "ours")
	file := func(name string) (cert, key string) {
		c, k := ours.issue(name)
		return put(t, dir, name+".crt", c), put(t, dir, name+".key", k)
	}
	config := outbound.Config{Kubelet: outbound.KubeletConfig{CAFile: put(t, dir, "ca", ours.pem), TokenFile: put(t, dir, "token", "secret\n")}}
	config.Kubelet.CertFile, config.Kubelet.KeyFile = file("apiserver")
	config.ClientCertFile, config.ClientKeyFile = file("proxy")
	server := newTarget(t, whoAsks, asking(ours.pair("node-1", "127.0.0.1")))
	o := loose(t, config)
	tests := []struct {
		name    string
		profile outbound.Profile
		headers []string
		want    string
	}{
		{"kubelet", outbound.Profile{Scheme: "https", Kubelet: true}, nil, "apiserver  Bearer secret"},
		{"kubelet by another name", outbound.Profile{Scheme: "https", Kubelet: true, ServerName: "node-1"}, nil, "apiserver node-1 Bearer secret"},
		{"kubelet, always TLS", outbound.Profile{Scheme: "http", Kubelet: true}, nil, "apiserver  Bearer secret"},
		{"kubelet, the client's own token", outbound.Profile{Scheme: "https", Kubelet: true}, []string{"Authorization", "Bearer other"}, "apiserver  Bearer other"},
		{"others", outbound.Profile{Scheme: "https"}, nil, "proxy  "},
		{"others by name", outbound.Profile{Scheme: "https", ServerName: "web.default.svc"}, nil, "proxy web.default.svc "},
	}
	for _, tt := range tests {
		for lane, rt := range map[string]http.RoundTripper{"ordinary": o.RoundTripper(tt.profile), "upgrade": o.Upgrade(tt.profile)} {
			r := request(t, "GET", server.URL, "", tt.headers...)
			before := fmt.Sprint(r.Header, r.URL)
			got, err := send(rt, r)
			if got != tt.want || err != nil {
				t.Errorf("%s, %s: got %q, %v, want %q", tt.name, lane, got, err, tt.want)
			}
			if after := fmt.Sprint(r.Header, r.URL); after != before {
				t.Errorf("%s: the request has become %s", tt.name, after)
			}
		}
	}
}

// TestConfigs are those that are refused.
func TestConfigs(t *testing.T) {
	dir := t.TempDir()
	empty, ca := put(t, dir, "empty", ""), put(t, dir, "ca", newAuthority(t, "ours").pem)
	for want, config := range map[string]outbound.Config{
		"a certificate needs a key":     {ClientCertFile: ca},
		"and a key a certificate":       {Kubelet: outbound.KubeletConfig{KeyFile: ca}},
		"needs a certificate authority": {Kubelet: outbound.KubeletConfig{TokenFile: ca}},
		"is empty":                      {Kubelet: outbound.KubeletConfig{TokenFile: empty, CAFile: ca}},
		"no certificate in PEM":         {CAFile: empty},
		"no such file":                  {CAFile: dir + "/missing"},
		"for kubelets: load the client": {Kubelet: outbound.KubeletConfig{CertFile: ca, KeyFile: ca}},
		"number 1 is not a prefix":      {Deny: make([]netip.Prefix, 1)},
		"one is negative":               {IdleTimeout: -time.Second},
	} {
		if _, err := outbound.New(config); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("got %v, want %s", err, want)
		}
	}
}

// TestRotation replaces the kubelets' credentials while connections are open: one waits unused, one is in use. Each goes
// as soon as nobody uses it, and others are not concerned.
func TestRotation(t *testing.T) {
	dir := t.TempDir()
	ours := newAuthority(t, "ours")
	config := outbound.Config{Kubelet: outbound.KubeletConfig{
		CertFile: dir + "/crt", KeyFile: dir + "/key", CAFile: put(t, dir, "ca", ours.pem), TokenFile: put(t, dir, "token", "one"),
	}}
	journal := &nettest.Journal{}
	config.Log = slog.New(slog.NewTextHandler(journal, nil))
	rotate := func(name string) {
		cert, key := ours.issue(name)
		put(t, dir, "crt", cert)
		put(t, dir, "key", key)
	}
	rotate("first")
	release := make(chan struct{})
	server := newTarget(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/slow" {
			fmt.Fprintln(w, "begun")
			w.(http.Flusher).Flush()
			<-release
			return
		}
		whoAsks(w, r)
	}, asking(ours.pair("node-1", "127.0.0.1")))
	plainServer := newTarget(t, describe, plain)
	o := loose(t, config)
	rt, other := o.RoundTripper(outbound.Profile{Kubelet: true}), o.RoundTripper(outbound.Profile{Scheme: "http"})

	slow, err := rt.RoundTrip(request(t, "GET", server.URL+"/slow", ""))
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Body.Close()
	ask := func(rt http.RoundTripper, url, want string) {
		t.Helper()
		if got, err := send(rt, request(t, "GET", url, "")); err != nil || !strings.HasPrefix(got, want) {
			t.Errorf("got %q, %v, want %q", got, err, want)
		}
	}
	ask(rt, server.URL, "first  Bearer one")
	ask(other, plainServer.URL, "HTTP/1.1")

	put(t, dir, "key", "half") // what cannot be used is left
	until(t, "the files were looked at", func() bool { return strings.Contains(journal.String(), "cannot be used") })
	ask(rt, server.URL, "first  Bearer one")
	put(t, dir, "token", "two")
	rotate("second")
	until(t, "the idle connection is closed", func() bool { _, open := server.connections(); return open == 1 })
	ask(rt, server.URL, "second  Bearer two")
	if line, err := bufio.NewReader(slow.Body).ReadString('\n'); line != "begun\n" || err != nil {
		t.Errorf("what was in use: %q, %v", line, err)
	}
	close(release)
	io.Copy(io.Discard, slow.Body)
	until(t, "the connection that was in use is closed too", func() bool { _, open := server.connections(); return open == 1 })
	ask(rt, server.URL, "second  Bearer two")
	ask(other, plainServer.URL, "HTTP/1.1")
	if all, _ := server.connections(); all != 3 {
		t.Errorf("%d connections, want 3", all)
	}
	if all, _ := plainServer.connections(); all != 1 {
		t.Errorf("%d connections of others, want 1", all)
	}
}
