package server_test

import (
	"crypto/tls"
	"crypto/x509/pkix"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	authnv1 "k8s.io/api/authentication/v1"
)

// spoofs are attempts to be somebody else, each with other spellings.
func spoofs() []http.Header {
	return []http.Header{
		nil,
		{"X-Remote-User": {"mallory"}, "X-Remote-Group": {"system:masters"}, "X-Remote-Uid": {"0"}, "X-Remote-Extra-Scopes": {"all"}},
		{"x-remote-user": {"mallory"}, "x-remote-group": {"system:masters"}, "x-remote-uid": {"0"}, "x-remote-extra-authentication.kubernetes.io%2fcredential-id": {"X509SHA256=00"}},
		{"X-REMOTE-USER": {"mallory"}, "x-ReMoTe-GrOuP": {"system:masters", "system:nodes"}, "X-Remote-Extra-": {"x"}},
		{"X_Remote_User": {"mallory"}, "X-Remote_Group": {"system:masters"}, "X_REMOTE_UID": {"0"}, "X_Remote_Extra_Scopes": {"all"}},
		{"X-Remote-User": {"", "mallory"}, "x-remote-user": {"mallory", ""}, "X-Remote-Group": {"system:masters", "system:masters"}},
	}
}

type identityCase struct {
	name        string
	certificate *tls.Certificate
	header      http.Header
	code        int
	want        http.Header // identity and credentials that the API server sees
	peer        string
	trusted     bool // its headers are its identity: do not spoof
}

func identityCases(t *testing.T, s *stage) []identityCase {
	token, basic := http.Header{"Authorization": {"Bearer good"}}, http.Header{"Authorization": {"Basic YTpi"}}
	bob := s.clients.pair(t, pkix.Name{CommonName: "bob", Organization: []string{"x", "y"}})
	other := newAuthority(t, "clients") // of the same name
	asBob := http.Header{"X-Remote-User": {"bob"}, "X-Remote-Group": {"x", "y"}, "Credential-Id": nil}
	carol := http.Header{"X-Remote-User": {"carol"}, "X-Remote-Group": {"a", "b"}, "X-Remote-Extra-Scopes": {"s"}}
	frontProxy := s.proxies.pair(t, pkix.Name{CommonName: "front-proxy-client"})
	const front = "front-proxy-client"
	return []identityCase{
		{name: "nobody", code: 200, want: http.Header{}},
		{name: "token", header: token, code: 200, want: token},
		{name: "a wrong token, which only the API server can tell", header: http.Header{"Authorization": {"Bearer wrong"}}, code: 200, want: http.Header{"Authorization": {"Bearer wrong"}}},
		{name: "basic", header: basic, code: 200, want: basic},
		{name: "certificate", certificate: bob, code: 200, want: asBob, peer: front},
		{name: "certificate and token", certificate: bob, header: token, code: 200, want: asBob, peer: front},
		{name: "certificate and basic", certificate: bob, header: basic, code: 200, want: asBob, peer: front},
		{name: "certificate of an unknown authority", certificate: other.pair(t, pkix.Name{CommonName: "bob"}), code: 401},
		{name: "certificate of an unknown authority, and basic", certificate: other.pair(t, pkix.Name{CommonName: "bob"}), header: basic, code: 401},
		{name: "certificate of an unknown authority, and token", certificate: other.pair(t, pkix.Name{CommonName: "bob"}), header: token, code: 200, want: token},
		{name: "expired certificate", certificate: expired(t, s.clients), code: 401},
		{name: "certificate without a name", certificate: s.clients.pair(t, pkix.Name{Organization: []string{"x"}}), code: 401}, // as upstream
		{name: "certificate whose group HTTP would change", certificate: s.clients.pair(t, pkix.Name{CommonName: "eve", Organization: []string{" system:masters"}}), code: 403},
		{name: "certificate whose name HTTP would change", certificate: s.clients.pair(t, pkix.Name{CommonName: "admin "}), header: token, code: 403},
		{name: "front proxy", certificate: frontProxy, header: carol, code: 200, want: carol, peer: front, trusted: true},
		{name: "front proxy that names nobody", certificate: frontProxy, code: 401, trusted: true},
		{name: "front proxy that names nobody, and token", certificate: frontProxy, header: token, code: 200, want: token, trusted: true},
		{name: "front proxy of another name", certificate: s.proxies.pair(t, pkix.Name{CommonName: "somebody"}), header: carol, code: 401, trusted: true},
		{name: "front proxy by the clients' authority", certificate: s.clients.pair(t, pkix.Name{CommonName: front}), header: carol, code: 200,
			want: http.Header{"X-Remote-User": {front}, "Credential-Id": nil}, peer: front},
	}
}

func expired(t *testing.T, a *authority) *tls.Certificate {
	t.Helper()
	c, err := tls.X509KeyPair(a.sign(t, pkix.Name{CommonName: "bob"}, -time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	return &c
}

// identityOf returns what decides who somebody is in a request as the API server has it.
func identityOf(h http.Header) http.Header {
	out := http.Header{}
	for name, values := range h {
		flat := strings.ReplaceAll(strings.ToLower(name), "_", "-")
		switch {
		case flat == "x-remote-extra-authentication.kubernetes.io%2fcredential-id" && strings.HasPrefix(values[0], "X509SHA256=") && len(values[0]) > 64:
			out["Credential-Id"] = nil
		case strings.HasPrefix(flat, "x-remote-") || flat == "authorization" || strings.HasPrefix(flat, "impersonate-"):
			out[name] = values
		}
	}
	return out
}

// TestIdentitiesThatArePassedOn sends every kind of client with every spoof over both versions of HTTP, and looks at what the
// API server is told.
func TestIdentitiesThatArePassedOn(t *testing.T) {
	s := newStage(t, nil)
	for _, path := range []string{"/version", "/api/v1/pods?watch=true"} {
		for _, c := range identityCases(t, s) {
			for version := 1; version <= 2; version++ {
				client := s.client(t, c.certificate, version)
				for i, spoof := range spoofs() {
					if c.trusted && i > 0 {
						break
					}
					t.Run(fmt.Sprintf("%s HTTP/%d %s spoof %d", path, version, c.name, i), func(t *testing.T) {
						header := spoof.Clone()
						if header == nil {
							header = http.Header{}
						}
						for name, values := range c.header {
							header[name] = values
						}
						resp, body := do(t, client, http.MethodGet, s.url+path, header, nil)
						if resp.StatusCode != c.code {
							t.Fatalf("answer %d %s, want %d", resp.StatusCode, body, c.code)
						}
						if c.code != http.StatusOK {
							if got := s.api.take(); len(got) > 0 {
								t.Errorf("the API server got %+v", got)
							}
							if !strings.Contains(body, `"kind":"Status"`) {
								t.Errorf("the answer is no Status: %s", body)
							}
							return
						}
						got := s.api.one(t)
						if diff := cmp.Diff(c.want, identityOf(got.Header)); diff != "" {
							t.Errorf("identity at the API server (-want +got):\n%s", diff)
						}
						if got.Peer != c.peer {
							t.Errorf("certificate at the API server is of %q, want %q", got.Peer, c.peer)
						}
					})
				}
			}
		}
	}
}

// TestTransportsByKind looks at the version of HTTP that requests take, and that no connection serves two kinds of clients.
func TestTransportsByKind(t *testing.T) {
	s := newStage(t, nil)
	bob := s.clients.pair(t, pkix.Name{CommonName: "bob"})
	token := http.Header{"Authorization": {"Bearer good"}}
	conns := map[string]string{} // -> kind
	for _, c := range []struct {
		path, proto string
		certificate *tls.Certificate
		header      http.Header
	}{
		{"/version", "HTTP/1.1", bob, nil}, {"/version", "HTTP/1.1", nil, token}, {"/version", "HTTP/1.1", nil, nil},
		{"/api/v1/pods?watch=1", "HTTP/2.0", bob, nil}, {"/api/v1/pods?watch=1", "HTTP/2.0", nil, token},
		{"/api/v1/pods?watch=1", "HTTP/1.1", nil, nil}, // the API server would end the connection of all who have a token
		{"/api/v1/namespaces/a/pods/b/log?follow=true", "HTTP/2.0", bob, nil},
		{"/api/v1/namespaces/a/pods/b/log?follow=false", "HTTP/1.1", bob, nil},
	} {
		for version := 1; version <= 2; version++ {
			do(t, s.client(t, c.certificate, version), http.MethodGet, s.url+c.path, c.header, nil)
			got := s.api.one(t)
			if got.Proto != c.proto {
				t.Errorf("%s took %s, want %s", c.path, got.Proto, c.proto)
			}
			kind := "plain"
			if c.certificate != nil {
				kind = "identified"
			}
			if known, ok := conns[got.Conn]; ok && known != kind {
				t.Errorf("%s: a connection was used for %s and %s clients", c.path, known, kind)
			}
			conns[got.Conn] = kind
		}
	}
}

func TestImpersonationIsTheClientsOwn(t *testing.T) {
	s := newStage(t, nil)
	wish := http.Header{"Impersonate-User": {"root"}, "Impersonate-Group": {"a", "b"}, "Impersonate-Extra-Scopes": {"s"}}
	for _, c := range []struct {
		certificate *tls.Certificate
		header      http.Header
		want        http.Header
	}{
		{s.clients.pair(t, pkix.Name{CommonName: "bob"}), nil, http.Header{"X-Remote-User": {"bob"}, "Credential-Id": nil}},
		{nil, http.Header{"Authorization": {"Bearer good"}}, http.Header{"Authorization": {"Bearer good"}}},
	} {
		header := wish.Clone()
		for name, values := range c.header {
			header[name] = values
		}
		for name, values := range wish {
			c.want[name] = values
		}
		do(t, s.client(t, c.certificate, 1), http.MethodGet, s.url+"/version", header, nil)
		if diff := cmp.Diff(c.want, identityOf(s.api.one(t).Header)); diff != "" {
			t.Errorf("(-want +got):\n%s", diff)
		}
	}
}

// TestConnectionFieldsDecideNothing asks to have fields dropped on the way that say who somebody is.
func TestConnectionFieldsDecideNothing(t *testing.T) {
	s := newStage(t, nil)
	bob := s.clients.pair(t, pkix.Name{CommonName: "bob"})
	for _, c := range []struct {
		connection string
		code       int
	}{
		{"X-Remote-User", 400}, {"close, x-remote-group", 400}, {"X_Remote_Extra_Scopes", 400}, {"keep-alive,  Authorization", 400},
		{"impersonate-user", 400}, {"Impersonate-Extra-Scopes", 400}, {"X-Forwarded-For", 400}, {"Keep-Alive", 200}, {"X-Other, close", 200},
	} {
		header := http.Header{"Connection": {c.connection}, "Impersonate-User": {"root"}, "X-Other": {"1"}, "X-Remote-User": {"mallory"}}
		resp, body := do(t, s.client(t, bob, 1), http.MethodGet, s.url+"/version", header, nil)
		if resp.StatusCode != c.code {
			t.Errorf("Connection: %s: answer %d %s, want %d", c.connection, resp.StatusCode, body, c.code)
		}
		if got := s.api.take(); c.code == 200 {
			want := http.Header{"X-Remote-User": {"bob"}, "Credential-Id": nil, "Impersonate-User": {"root"}}
			if diff := cmp.Diff(want, identityOf(got[0].Header)); diff != "" {
				t.Errorf("Connection: %s: (-want +got):\n%s", c.connection, diff)
			}
		} else if len(got) > 0 {
			t.Errorf("Connection: %s: the API server got %+v", c.connection, got)
		}
	}
}

func TestTrailersCarryNoIdentity(t *testing.T) {
	s := newStage(t, nil)
	for version := 1; version <= 2; version++ {
		r, err := http.NewRequest(http.MethodPost, s.url+"/version", io.NopCloser(strings.NewReader("body")))
		if err != nil {
			t.Fatal(err)
		}
		r.Trailer = http.Header{"X-Remote-User": {"mallory"}, "X-Remote-Group": {"system:masters"}, "X-Sum": {"1"}}
		resp, err := s.client(t, nil, version).Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		got := s.api.one(t)
		if diff := cmp.Diff(http.Header{"X-Sum": {"1"}}, got.Trailer); diff != "" || got.Body != "body" {
			t.Errorf("HTTP/%d: body %q, trailers (-want +got):\n%s", version, got.Body, diff)
		}
	}
}

// TestOwnAccountStaysOwn looks for the server's own credential in all that clients could cause.
func TestOwnAccountStaysOwn(t *testing.T) {
	s := newStage(t, nil)
	s.api.tokens["good"] = authnv1.UserInfo{Username: "alice"}
	var certificates []*tls.Certificate
	for _, c := range identityCases(t, s) {
		certificates = append(certificates, c.certificate)
	}
	for _, certificate := range certificates {
		for _, path := range []string{"/version", "/api/v1/pods?watch=1", podProxy, podProxy + "?upstream", "/api/v1/proxy/nodes/a"} {
			for _, header := range []http.Header{nil, {"Authorization": {"Bearer good"}}, {"Authorization": {""}}, {"Authorization": {"Bearer "}}, {"Authorization": nil}} {
				do(t, s.client(t, certificate, 1), http.MethodGet, s.url+path, header, nil)
			}
		}
	}
	all := s.api.take()
	if len(all) < 50 {
		t.Fatalf("the API server got %d requests", len(all))
	}
	for _, got := range all {
		if strings.Contains(fmt.Sprint(got), own) {
			t.Errorf("the server's own credential was sent: %+v", got)
		}
	}
	s.api.mu.Lock()
	defer s.api.mu.Unlock()
	if s.api.account != "Bearer "+own {
		t.Errorf("reviews came as %q", s.api.account)
	}
}

func TestWithoutFrontProxyCertificate(t *testing.T) {
	s := newStage(t, func(s *stage, _ *frontConfig) { s.options.ProxyClientCertFile, s.options.ProxyClientKeyFile = "", "" })
	bob := s.clients.pair(t, pkix.Name{CommonName: "bob"})
	resp, body := do(t, s.client(t, bob, 1), http.MethodGet, s.url+"/version", nil, nil)
	if resp.StatusCode != http.StatusForbidden || !strings.Contains(body, "--proxy-client-cert-file") {
		t.Errorf("answer %d %s", resp.StatusCode, body)
	}
	if resp, body := do(t, s.client(t, bob, 1), http.MethodGet, s.url+podProxy, nil, nil); resp.StatusCode != http.StatusOK {
		t.Errorf("proxy path: answer %d %s", resp.StatusCode, body)
	}
	if got := s.api.take(); len(got) > 0 {
		t.Errorf("the API server got %+v", got)
	}
}
