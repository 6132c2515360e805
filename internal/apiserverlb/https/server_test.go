package https_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/net/http2"

	"varco.dev/internal/apiserverlb/https"
	"varco.dev/internal/httpproxy/vouch"
	"varco.dev/internal/observe"
)

func timeout(t *testing.T, d time.Duration) (context.Context, context.CancelFunc) {
	return context.WithTimeout(t.Context(), d)
}

// frames opens a connection of HTTP/2 and returns what reads it.
func (s *stage) frames(t *testing.T) *http2.Framer {
	t.Helper()
	config := s.tls(nil)
	config.NextProtos = []string{"h2"}
	conn, err := tls.Dial("tcp", s.addr.String(), config)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	io.WriteString(conn, http2.ClientPreface)
	f := http2.NewFramer(conn, conn)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	return f
}

// goesAway reads until a GOAWAY comes.
func goesAway(f *http2.Framer) error {
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return err
		}
		if away, ok := frame.(*http2.GoAwayFrame); ok {
			if away.ErrCode != http2.ErrCodeNo {
				return fmt.Errorf("code %v", away.ErrCode)
			}
			return nil
		}
	}
}

// TestDrainTellsClientsToGo wants a GOAWAY on a connection of HTTP/2 that is idle.
func TestDrainTellsClientsToGo(t *testing.T) {
	s := newStage(t, nil)
	f := s.frames(t)
	if frame, err := f.ReadFrame(); err != nil {
		t.Fatal(frame, err)
	}
	ctx, cancel := timeout(t, 5*time.Second)
	defer cancel()
	if err := s.Drain(ctx); err != nil {
		t.Error(err)
	}
	if err := goesAway(f); err != nil {
		t.Error(err)
	}
}

// TestGoawayChance counts the connections that a client of HTTP/2 needs.
func TestGoawayChance(t *testing.T) {
	for chance, most := range map[float64]int{0: 1, https.MostGoawayChance: 60} {
		s := newStage(t, func(_ *stage, c *https.Config, _ *https.Listener) { c.GoawayChance = chance })
		client := s.client(t, nil, 2)
		fresh := 0
		ctx := httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{GotConn: func(info httptrace.GotConnInfo) {
			if !info.Reused {
				fresh++
			}
		}})
		for range 1000 {
			r, err := http.NewRequestWithContext(ctx, "GET", s.url+pods, nil)
			if err != nil {
				t.Fatal(err)
			}
			r.Header = token()
			resp, err := client.Do(r)
			if err != nil {
				t.Fatal(err)
			}
			io.Copy(io.Discard, resp.Body)
			resp.Body.Close()
		}
		if fresh > most || chance > 0 && fresh < 3 { // of 20 that are due
			t.Errorf("with chance %v: %d connections", chance, fresh)
		}
	}
}

// TestCertificatesAreFollowed changes what the server shows, and what it vouches with.
func TestCertificatesAreFollowed(t *testing.T) {
	s := newStage(t, nil)
	shown := func() string {
		conn, err := tls.Dial("tcp", s.addr.String(), s.tls(nil))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		return conn.ConnectionState().PeerCertificates[0].Subject.CommonName
	}
	if got := shown(); got != "balancer" {
		t.Fatalf("it shows %s", got)
	}
	for _, pair := range []struct {
		of         *authority
		cert, name string
	}{{s.serving, "tls", "renewed"}, {s.proxies, "proxy", "front-proxy-client"}} {
		cert, key := pair.of.sign(t, pair.name)
		s.write(t, pair.cert+".crt", cert)
		s.write(t, pair.cert+".key", key)
	}
	waitFor(t, func() bool { return shown() == "renewed" })
	s.write(t, "clients.crt", newAuthority(t, "others").pem)
	bob := s.client(t, s.clients.pair(t, "bob"), 2)
	waitFor(t, func() bool { resp, _ := do(t, bob, "GET", s.url+pods, nil, nil); return resp.StatusCode == 401 })
	s.write(t, "tls.crt", []byte("nonsense"))
	if got := shown(); got != "renewed" {
		t.Errorf("it shows %s", got)
	}
}

// TestLimits wants connections beyond the limits to be reset, and others to take their place when they go.
func TestLimits(t *testing.T) {
	for _, c := range []struct {
		name   string
		limits https.Limits
		count  func(https.Stats) int64
	}{
		{"connections", https.Limits{Connections: 2}, func(s https.Stats) int64 { return s.Refused }},
		{"of one source", https.Limits{PerSource: 2}, func(s https.Stats) int64 { return s.Crowded }},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, func(_ *stage, config *https.Config, _ *https.Listener) { config.Limits = c.limits })
			var open []*tls.Conn
			for range 2 {
				conn, err := tls.Dial("tcp", s.addr.String(), s.tls(nil))
				if err != nil {
					t.Fatal(err)
				}
				defer conn.Close()
				open = append(open, conn)
			}
			if conn, err := tls.Dial("tcp", s.addr.String(), s.tls(nil)); err == nil {
				conn.Close()
				t.Error("a third is let in")
			}
			if n := c.count(s.Stats()); n != 1 {
				t.Errorf("%d were counted", n)
			}
			open[0].Close()
			waitFor(t, func() bool { return s.Stats().Connections < 2 })
			if resp, _ := do(t, s.client(t, nil, 2), "GET", s.url+pods, token(), nil); resp.StatusCode != 200 {
				t.Error(resp.Status)
			}
			s.SetLimits(https.Limits{})
			for range 3 {
				if resp, _ := do(t, s.client(t, nil, 2), "GET", s.url+pods, token(), nil); resp.StatusCode != 200 {
					t.Error(resp.Status)
				}
			}
		})
	}
}

// TestProxyProtocol wants a client's own address to be known where a header is due, and nothing to be served without one.
func TestProxyProtocol(t *testing.T) {
	s := newStage(t, func(_ *stage, c *https.Config, l *https.Listener) {
		l.ProxyFrom = []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
		c.HeaderTimeout = 500 * time.Millisecond
	})
	for _, c := range []struct {
		name, header string
		client       string // as the API server is told; empty: the connection is reset
	}{
		{"version 1", "PROXY TCP4 192.0.2.7 192.0.2.1 1234 443\r\n", "192.0.2.7"},
		{"IPv6", "PROXY TCP6 2001:db8::7 2001:db8::1 1234 443\r\n", "2001:db8::7"},
		{"local", "PROXY UNKNOWN\r\n", "127.0.0.1"},
		{"none", "", ""},
		{"nonsense", "PROXY NONSENSE\r\n", ""},
		{"half", "PROXY TCP4 192", ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			misread := s.Stats().Misread
			conn, err := net.Dial("tcp", s.addr.String())
			if err != nil {
				t.Fatal(err)
			}
			defer conn.Close()
			secure := tls.Client(&headed{Conn: conn, header: c.header}, &tls.Config{RootCAs: s.serving.pool(), ServerName: "localhost"})
			if c.name == "half" {
				io.WriteString(conn, c.header)
				_, err = conn.Read(make([]byte, 1))
			} else {
				err = secure.Handshake()
			}
			if c.client == "" {
				if err == nil || errors.Is(err, context.DeadlineExceeded) || s.Stats().Misread != misread+1 {
					t.Errorf("it is served: %v, %+v", err, s.Stats())
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintf(secure, "GET %s HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer t\r\nConnection: close\r\n\r\n", pods)
			if answer, err := io.ReadAll(secure); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
				t.Fatalf("answer %s %v", answer, err)
			}
			var told string
			for _, a := range s.apis {
				for _, r := range a.take() {
					told += r.Header.Get("X-Forwarded-For")
				}
			}
			if told != c.client {
				t.Errorf("the API server is told %q", told)
			}
		})
	}
	waitFor(t, func() bool { return s.Stats().Connections == 0 })
}

// headed is a connection with a header before what is said.
type headed struct {
	net.Conn
	header string
}

func (h *headed) Write(p []byte) (int, error) {
	n, err := h.Conn.Write(append([]byte(h.header), p...))
	n = max(0, n-len(h.header))
	h.header = ""
	return n, err
}

// TestListeners adds one and takes it away, while a client of it stays.
func TestListeners(t *testing.T) {
	s := newStage(t, nil)
	l, addr := listen(t)
	cert, key := s.serving.sign(t, "second")
	second := https.Listener{Name: "two", Net: l, CertFile: s.write(t, "two.crt", cert), KeyFile: s.write(t, "two.key", key)}
	if err := s.Listen(second); err != nil {
		t.Fatal(err)
	}
	if s.Listen(second) == nil {
		t.Error("a name may be taken twice")
	}
	if s.Listen(https.Listener{Name: "three", Net: l, CertFile: second.CertFile, KeyFile: second.CertFile}) == nil {
		t.Error("a key is not needed")
	}
	client := s.client(t, nil, 2)
	url := "https://" + addr.String() + pods
	if resp, _ := do(t, client, "GET", url, token(), nil); resp.TLS.PeerCertificates[0].Subject.CommonName != "second" {
		t.Error("another certificate is shown")
	}
	s.Unlisten("two")
	s.Unlisten("two")
	if resp, _ := do(t, client, "GET", url, token(), nil); resp.StatusCode != 200 {
		t.Errorf("on a connection of before: %s", resp.Status)
	}
	if conn, err := net.Dial("tcp", addr.String()); err == nil {
		conn.Close()
		t.Error("it accepts connections")
	}
	if resp, _ := do(t, client, "GET", s.url+pods, token(), nil); resp.StatusCode != 200 {
		t.Errorf("the other listener: %s", resp.Status)
	}
}

// TestNewChecks wants what cannot work to be said.
func TestNewChecks(t *testing.T) {
	trust := vouch.NewTrust(vouch.TrustConfig{Log: quiet()})
	for want, c := range map[string]https.Config{
		"required":           {},
		"belong together":    {Balancer: &balancer{}, Trust: trust, Log: quiet(), FrontProxyKeyFile: "x"},
		"https.goawayChance": {Balancer: &balancer{}, Trust: trust, Log: quiet(), GoawayChance: 0.5},
	} {
		if _, err := https.New(c); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("error %v", err)
		}
	}
}

// TestRunFails wants the reason.
func TestRunFails(t *testing.T) {
	for _, c := range []https.Config{
		{FrontProxyCertFile: "/nonexistent", FrontProxyKeyFile: "/nonexistent"},
		{Backends: https.Backends{CAFile: "/nonexistent"}},
	} {
		c.Balancer, c.Log, c.Trust, c.Access = &balancer{}, quiet(), vouch.NewTrust(vouch.TrustConfig{Log: quiet()}), observe.NewAccessMetrics()
		s, err := https.New(c)
		if err != nil {
			t.Fatal(err)
		}
		if s.Ready() == nil {
			t.Error("it is ready before it runs")
		}
		if err := s.Run(t.Context()); err == nil || !strings.Contains(err.Error(), "/nonexistent: no such file") {
			t.Errorf("error %v", err)
		}
	}
}
