package server_test

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	authnv1 "k8s.io/api/authentication/v1"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	cliflag "k8s.io/component-base/cli/flag"

	"varco.dev/internal/apiserverproxy/server"
	"varco.dev/internal/observe"
)

// TestServingOptions looks at versions, ciphers, protocols and names of TLS.
func TestServingOptions(t *testing.T) {
	named := newAuthority(t, "named")
	s := newStage(t, func(s *stage, _ *frontConfig) {
		cert, key := named.sign(t, pkix.Name{CommonName: "sni"}, time.Hour)
		dir := t.TempDir()
		s.options.Serving.SNICertKeys = []cliflag.NamedCertKey{{CertFile: write(t, dir, "c", cert), KeyFile: write(t, dir, "k", key), Names: []string{"api.example", "*.wild.example"}}}
		s.options.Serving.MinTLSVersion, s.options.Serving.CipherSuites = "VersionTLS12", []string{"TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256"}
		s.options.Serving.DisableHTTP2Serving = true
	})
	dial := func(c *tls.Config) (tls.ConnectionState, error) {
		c.InsecureSkipVerify = true
		conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), c)
		if err != nil {
			return tls.ConnectionState{}, err
		}
		defer conn.Close()
		return conn.ConnectionState(), nil
	}
	for name, want := range map[string]string{"": "front", "localhost": "front", "api.example": "sni", "API.example": "sni", "a.wild.example": "sni", "a.b.wild.example": "front", "wild.example": "front"} {
		state, err := dial(&tls.Config{ServerName: name, NextProtos: []string{"h2", "http/1.1"}})
		if err != nil || state.PeerCertificates[0].Subject.CommonName != want || state.NegotiatedProtocol != "http/1.1" {
			t.Errorf("%q: certificate %v, protocol %q, error %v, want %s", name, state.PeerCertificates, state.NegotiatedProtocol, err, want)
		}
	}
	if _, err := dial(&tls.Config{MaxVersion: tls.VersionTLS11, MinVersion: tls.VersionTLS10}); err == nil {
		t.Error("TLS 1.1 was taken")
	}
	state, err := dial(&tls.Config{MaxVersion: tls.VersionTLS12})
	if err != nil || state.CipherSuite != tls.TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256 {
		t.Errorf("cipher %x, error %v", state.CipherSuite, err)
	}
}

// TestStrangersDoNotKeepConnections is CVE-2023-44487 and CVE-2023-39325, as far as upstream goes against them.
func TestStrangersDoNotKeepConnections(t *testing.T) {
	s := newStage(t, nil)
	s.api.tokens["alice"] = authnv1.UserInfo{Username: "alice"}
	s.api.handleWith(func(w http.ResponseWriter, r *http.Request) {
		if strings.Contains(r.Header.Get("Authorization"), "wrong") {
			w.WriteHeader(http.StatusUnauthorized)
		}
	})
	for _, path := range []string{"/version", podProxy} {
		for token, keeps := range map[string]bool{"": false, "wrong": false, "alice": true} {
			c := s.client(t, nil, 2)
			header := http.Header{}
			if token != "" {
				header = bearer(token)
			}
			ask := func() (reused bool) {
				r, err := http.NewRequest(http.MethodGet, s.url+path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header = header.Clone()
				r = r.WithContext(httptrace.WithClientTrace(r.Context(), &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) { reused = i.Reused }}))
				resp, err := c.Do(r)
				if err != nil {
					t.Fatal(err)
				}
				_, _ = io.Copy(io.Discard, resp.Body)
				resp.Body.Close()
				return reused
			}
			ask()
			for range 3 {
				if keeps && !ask() {
					t.Errorf("%s with token %q: the connection was not used again", path, token)
				}
			}
			if !keeps {
				waitFor(t, func() bool { return !ask() }) // the GOAWAY comes after the answer
			}
		}
	}
}

// TestUpgradeOnProxyPath changes the protocol behind the whole chain, with a token in a WebSocket's subprotocol, and reads
// what the audit log says of it.
func TestUpgradeOnProxyPath(t *testing.T) {
	dir := t.TempDir()
	log := filepath.Join(dir, "audit.log")
	metrics := observe.NewAccessMetrics()
	s := newStage(t, func(s *stage, c *frontConfig) {
		s.options.Audit.PolicyFile = write(t, dir, "policy", []byte("apiVersion: audit.k8s.io/v1\nkind: Policy\nrules: [{level: Metadata}]\n"))
		s.options.Audit.LogOptions.Path = log
		c.Access = metrics
		c.Proxy = func(http.Handler, authorizer.Authorizer) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if got := r.Header.Get("Sec-Websocket-Protocol"); got != "v5.channel.k8s.io" {
					t.Errorf("the handler got the protocols %q", got)
				}
				echoUpgrade(w, r)
			})
		}
	})
	s.api.tokens["good"] = authnv1.UserInfo{Username: "alice"}
	conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{RootCAs: s.serving.pool()})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\nSec-Websocket-Protocol: base64url.bearer.authorization.k8s.io.Z29vZA, v5.channel.k8s.io\r\n\r\nhello\n", podProxy)
	content := make([]byte, 200)
	var all string
	for !strings.Contains(all, "HELLO\n") {
		n, err := conn.Read(content)
		if err != nil {
			t.Fatalf("%v after %q", err, all)
		}
		all += string(content[:n])
	}
	if !strings.HasPrefix(all, "HTTP/1.1 101 ") {
		t.Errorf("answer %q", all)
	}
	conn.Close()
	var e auditv1.Event
	waitFor(t, func() bool {
		written, err := os.ReadFile(log)
		lines := strings.Split(strings.TrimSpace(string(written)), "\n")
		return err == nil && json.Unmarshal([]byte(lines[len(lines)-1]), &e) == nil && e.Stage == "ResponseComplete"
	})
	if e.ResponseStatus.Code != 101 || e.User.Username != "alice" || e.ObjectRef.Subresource != "proxy" || e.ObjectRef.Name != "https:web:443" {
		t.Errorf("audit event %+v", e)
	}
}

// TestFlags wants upstream's names.
func TestFlags(t *testing.T) {
	fs := pflag.NewFlagSet("front", pflag.ContinueOnError)
	o := server.NewFrontOptions()
	o.AddFlags(fs)
	for _, name := range []string{
		"bind-address", "secure-port", "tls-cert-file", "tls-private-key-file", "tls-min-version", "tls-cipher-suites", "tls-sni-cert-key", "client-ca-file",
		"requestheader-client-ca-file", "requestheader-allowed-names", "requestheader-username-headers", "requestheader-uid-headers", "requestheader-group-headers",
		"requestheader-extra-headers-prefix", "authentication-kubeconfig", "authorization-kubeconfig", "authentication-token-webhook-cache-ttl",
		"authorization-webhook-cache-authorized-ttl", "audit-policy-file", "audit-log-path", "audit-webhook-config-file", "anonymous-auth",
		"proxy-client-cert-file", "proxy-client-key-file", "insecure-loopback-port",
	} {
		if fs.Lookup(name) == nil {
			t.Errorf("there is no --%s", name)
		}
	}
	if err := o.Validate(); err != nil {
		t.Errorf("the defaults: %v", err)
	}
	for _, arguments := range [][]string{
		{"--proxy-client-cert-file=a"}, {"--tls-cert-file=a"}, {"--secure-port=0"}, {"--insecure-loopback-port=70000"}, {"--drain-timeout=-1s"}, {"--requestheader-allowed-names= "},
	} {
		fs := pflag.NewFlagSet("front", pflag.ContinueOnError)
		o := server.NewFrontOptions()
		o.AddFlags(fs)
		if err := fs.Parse(arguments); err != nil {
			t.Fatal(err)
		}
		if o.Validate() == nil {
			t.Errorf("%v was taken", arguments)
		}
	}
}
