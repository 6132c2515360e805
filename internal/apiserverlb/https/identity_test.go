package https_test

import (
	"crypto/tls"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"varco.dev/internal/apiserverlb/https"
)

// TestIdentities wants clients to be at the API server who they are here, and nobody to be somebody else.
func TestIdentities(t *testing.T) {
	s := newStage(t, nil)
	bob, stranger := s.clients.pair(t, "bob", "devs"), newAuthority(t, "strangers").pair(t, "root", "system:masters")
	front := s.proxies.pair(t, "front-proxy-client")
	spoofed := http.Header{"X-Remote-User": {"root"}, "X-Remote-Group": {"system:masters"}, "X-Remote-Extra-A": {"b"}, "X-Remote-Uid": {"0"}, "X_remote_user": {"root"}}
	with := func(h http.Header, name, value string) http.Header {
		h = h.Clone()
		h.Set(name, value)
		return h
	}
	for _, c := range []struct {
		name        string
		certificate *tls.Certificate
		header      http.Header
		code        int
		peer, user  string // at the API server
		groups      []string
		auth        string
	}{
		{name: "certificate", certificate: bob, code: 200, peer: "front-proxy-client", user: "bob", groups: []string{"devs"}},
		{name: "certificate, spoofed", certificate: bob, header: spoofed, code: 200, peer: "front-proxy-client", user: "bob", groups: []string{"devs"}},
		{name: "certificate and token", certificate: bob, header: token(), code: 200, peer: "front-proxy-client", user: "bob", groups: []string{"devs"}},
		{name: "token", header: token(), code: 200, auth: "Bearer t"},
		{name: "token, spoofed", header: with(spoofed, "Authorization", "Bearer t"), code: 200, auth: "Bearer t"},
		{name: "nobody", code: 200},
		{name: "nobody, spoofed", header: spoofed, code: 200},
		{name: "stranger's certificate", certificate: stranger, header: spoofed, code: 401},
		{name: "stranger's certificate and token", certificate: stranger, header: token(), code: 200, auth: "Bearer t"},
		{name: "front proxy", certificate: front, header: http.Header{"X-Remote-User": {"eve"}, "X-Remote-Group": {"g"}}, code: 200, peer: "front-proxy-client", user: "eve", groups: []string{"g"}},
		{name: "front proxy of another name", certificate: s.proxies.pair(t, "other"), header: spoofed, code: 401},
		{name: "identity by Connection", certificate: bob, header: http.Header{"Connection": {"Authorization"}}, code: 400},
	} {
		for version := 1; version <= 2; version++ {
			if version == 2 && c.header["Connection"] != nil {
				continue // HTTP/2 has no such field
			}
			t.Run(c.name, func(t *testing.T) {
				resp, body := do(t, s.client(t, c.certificate, version), "GET", s.url+pods, c.header, nil)
				if resp.StatusCode != c.code {
					t.Fatalf("answer %s %s", resp.Status, body)
				}
				var all []seen
				for _, a := range s.apis {
					all = append(all, a.take()...)
				}
				if c.code != 200 {
					if len(all) > 0 {
						t.Errorf("an API server got %+v", all)
					}
					return
				}
				if len(all) != 1 {
					t.Fatalf("API servers got %+v", all)
				}
				got := all[0]
				if got.Peer != c.peer || got.Header.Get("X-Remote-User") != c.user || !slices.Equal(got.Header["X-Remote-Group"], c.groups) || got.Header.Get("Authorization") != c.auth {
					t.Errorf("an API server got %+v", got)
				}
				for name := range got.Header {
					if strings.EqualFold(name, "X-Remote-Extra-A") || strings.Contains(name, "_") || name == "X-Remote-Uid" {
						t.Errorf("it got %s as well", name)
					}
				}
				if got.Header.Get("X-Forwarded-For") != "127.0.0.1" || got.Host != s.addr.String() {
					t.Errorf("it got %v for %s", got.Header, got.Host)
				}
			})
		}
	}
}

// TestTrailersCarryNoIdentity sends one after a body.
func TestTrailersCarryNoIdentity(t *testing.T) {
	s := newStage(t, nil)
	r, err := http.NewRequest("POST", s.url+pods, struct{ io.Reader }{strings.NewReader("body")})
	if err != nil {
		t.Fatal(err)
	}
	r.Trailer = http.Header{"X-Remote-User": {"root"}, "X-Sum": {"1"}}
	resp, err := s.client(t, s.clients.pair(t, "bob"), 1).Do(r)
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	for _, a := range s.apis {
		for _, got := range a.take() {
			if got.Trailer.Get("X-Sum") != "1" || got.Trailer["X-Remote-User"] != nil || got.Body != "body" {
				t.Errorf("it got %+v", got)
			}
		}
	}
}

// TestWithoutFrontProxyCertificate wants certificates to be refused with a word that helps, and tokens to work.
func TestWithoutFrontProxyCertificate(t *testing.T) {
	s := newStage(t, func(_ *stage, c *https.Config, _ *https.Listener) { c.FrontProxyCertFile, c.FrontProxyKeyFile = "", "" })
	resp, body := do(t, s.client(t, s.clients.pair(t, "bob"), 2), "GET", s.url+pods, nil, nil)
	if resp.StatusCode != 403 || !strings.Contains(body, "https.frontProxyCertFile") {
		t.Errorf("answer %s %s", resp.Status, body)
	}
	if resp, _ := do(t, s.client(t, nil, 2), "GET", s.url+pods, token(), nil); resp.StatusCode != 200 {
		t.Errorf("with a token: %s", resp.Status)
	}
}

// TestMount wants some requests to be served by what is mounted, which knows the connection's certificate, and others, also
// those that it hands on, to go to a backend.
func TestMount(t *testing.T) {
	s := newStage(t, func(s *stage, c *https.Config, _ *https.Listener) {
		c.Mount = func(next http.Handler) http.Handler {
			return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
				if !strings.HasSuffix(r.URL.Path, "/proxy") || r.URL.RawQuery == "next" {
					next.ServeHTTP(w, r)
					return
				}
				who, ok, err := c.Trust.AuthenticateRequest(r)
				if err != nil || !ok {
					t.Errorf("who asks: %v %v", ok, err)
					return
				}
				io.WriteString(w, "mounted for "+who.User.GetName())
			})
		}
	})
	c := s.client(t, s.clients.pair(t, "bob"), 2)
	if _, body := do(t, c, "GET", s.url+pods+"/b/proxy", nil, nil); body != "mounted for bob" {
		t.Errorf("got %q", body)
	}
	for _, path := range []string{pods, pods + "/b/proxy?next"} {
		if _, body := do(t, c, "GET", s.url+path, nil, nil); !strings.HasPrefix(body, "127.0.0.1:") {
			t.Errorf("%s: got %q", path, body)
		}
	}
}
