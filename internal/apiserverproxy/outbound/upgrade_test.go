package outbound_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"

	"varco.dev/internal/apiserverproxy/outbound"
)

// parrot switches to a protocol in which everything is said twice, a line at a time. "no" in the path does not.
func parrot(w http.ResponseWriter, r *http.Request) {
	if r.URL.Path == "/no" {
		http.Error(w, "no", http.StatusForbidden)
		return
	}
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer conn.Close()
	fmt.Fprintf(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n%s\n", r.Header.Get("Upgrade"), r.Proto)
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			fmt.Fprint(conn, "end")
			return
		}
		fmt.Fprint(conn, line, line)
	}
}

// switching asks for another protocol.
func switching(t testing.TB, url string) *http.Request {
	return request(t, "GET", url, "", "Connection", "Upgrade", "Upgrade", "parrot")
}

// TestUpgrade speaks another protocol with targets of each kind, to the end of one direction and then of the other.
func TestUpgrade(t *testing.T) {
	bare, secure := newTarget(t, parrot, plain), newTarget(t, parrot, withHTTP2)
	for _, config := range []outbound.Config{{}, {IdleTimeout: patience}} {
		o := loose(t, config)
		for _, tt := range []struct {
			profile outbound.Profile
			to      *target
		}{
			{outbound.Profile{Scheme: "http"}, bare}, {outbound.Profile{Scheme: "h2c"}, bare},
			{outbound.Profile{Scheme: "https"}, secure}, {outbound.Profile{Kubelet: true}, secure},
		} {
			t.Run(fmt.Sprintf("%s %t", tt.profile.Scheme, tt.profile.Kubelet), func(t *testing.T) {
				resp, err := o.Upgrade(tt.profile).RoundTrip(switching(t, tt.to.URL))
				if err != nil {
					t.Fatal(err)
				}
				defer resp.Body.Close()
				conn, ok := resp.Body.(io.ReadWriteCloser)
				if !ok || resp.StatusCode != http.StatusSwitchingProtocols {
					t.Fatalf("got %s with a body of type %T", resp.Status, resp.Body)
				}
				from := bufio.NewReader(conn)
				hear := func(want string) {
					t.Helper()
					if got, err := from.ReadString('\n'); got != want || err != nil {
						t.Errorf("heard %q, %v, want %q", got, err, want)
					}
				}
				hear("HTTP/1.1\n")
				fmt.Fprintln(conn, "hello")
				hear("hello\n")
				hear("hello\n")
				if err := conn.(interface{ CloseWrite() error }).CloseWrite(); err != nil {
					t.Errorf("end of what we say: %v", err)
				}
				if rest, err := io.ReadAll(from); string(rest) != "end" || err != nil {
					t.Errorf("at the end: %q, %v", rest, err)
				}
			})
		}
	}
}

// TestUpgradeRefused has a target that stays with HTTP: its answer is one like others, and there is no way to its
// connection (CVE-2018-1002105).
func TestUpgradeRefused(t *testing.T) {
	server := newTarget(t, parrot, plain)
	resp, err := loose(t, outbound.Config{}).Upgrade(outbound.Profile{Scheme: "http"}).RoundTrip(switching(t, server.URL+"/no"))
	if err != nil {
		t.Fatal(err)
	}
	if _, ok := resp.Body.(io.Writer); ok || resp.StatusCode != http.StatusForbidden {
		t.Errorf("got %s with a body of type %T", resp.Status, resp.Body)
	}
	if body, err := io.ReadAll(resp.Body); string(body) != "no\n" || err != nil {
		t.Errorf("got %q, %v", body, err)
	}
	resp.Body.Close()
	until(t, "its connection is closed", func() bool { _, open := server.connections(); return open == 0 })
}

// TestResetReachesTheTarget finds the TCP connection below an upgraded one, as internal/relay does to end it with an error.
func TestResetReachesTheTarget(t *testing.T) {
	var below net.Conn
	server := newTarget(t, parrot, withTLS)
	o := loose(t, outbound.Config{IdleTimeout: patience})
	resp, err := o.Upgrade(outbound.Profile{Scheme: "https"}).RoundTrip(traced(switching(t, server.URL), &below))
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	for {
		next, ok := below.(interface{ NetConn() net.Conn })
		if !ok {
			break
		}
		below = next.NetConn()
	}
	if _, ok := below.(*net.TCPConn); !ok {
		t.Errorf("below is a %T", below)
	}
}
