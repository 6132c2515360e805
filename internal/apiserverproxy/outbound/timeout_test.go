package outbound_test

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/apiserverproxy/outbound"
)

// piped makes an Outbound whose targets are functions on the other end of a pipe, for time that passes at once.
func piped(t *testing.T, config outbound.Config, serve func(net.Conn)) *outbound.Outbound {
	config.Egress = func(context.Context, string, string) (net.Conn, error) {
		near, far := net.Pipe()
		go func() { defer far.Close(); serve(far) }()
		return near, nil
	}
	return strict(t, config)
}

const someone = "http://192.0.2.1:80/"

// TestHeaderTimeout has a target that says nothing.
func TestHeaderTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := piped(t, outbound.Config{HeaderTimeout: 5 * time.Second}, func(c net.Conn) { io.Copy(io.Discard, c) })
		for lane, rt := range map[string]http.RoundTripper{
			"ordinary": o.RoundTripper(outbound.Profile{Scheme: "http"}), "upgrade": o.Upgrade(outbound.Profile{Scheme: "http"}),
		} {
			start := time.Now()
			_, err := send(rt, request(t, "GET", someone, ""))
			if took := time.Since(start); !isTimeout(err) || took != 5*time.Second {
				t.Errorf("%s: %v after %s", lane, err, took)
			}
		}
	})
}

// isTimeout says whether an error is one for callers that ask for it.
func isTimeout(err error) bool {
	var t interface{ Timeout() bool }
	return errors.As(err, &t) && t.Timeout()
}

// TestNoTimeouts has a target that takes its time, with the default configuration.
func TestNoTimeouts(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		o := piped(t, outbound.Config{}, func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			time.Sleep(24 * time.Hour) // in a bubble: it passes at once
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n")
			time.Sleep(24 * time.Hour) // likewise
			io.WriteString(c, "late")
		})
		if got, err := send(o.RoundTripper(outbound.Profile{Scheme: "http"}), request(t, "GET", someone, "")); got != "late" || err != nil {
			t.Errorf("got %q, %v", got, err)
		}
	})
}

// TestIdleTimeout lets connections fall silent: while a header is waited for, within an answer, and after an upgrade. As
// long as anything is said in either direction, they last.
func TestIdleTimeout(t *testing.T) {
	const idle, say = 10 * time.Second, 6 * time.Second
	const head = "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n"
	const switched = "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: parrot\r\n\r\n"
	tests := []struct {
		name   string
		serve  func(net.Conn)
		client func(*http.Response) error
		after  time.Duration // the connection ends, since the beginning
	}{
		{"no header", func(c net.Conn) { io.Copy(io.Discard, c) }, nil, idle},
		{"an answer that stops", func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, head)
			for range 3 {
				time.Sleep(say) // in a bubble: it passes at once
				io.WriteString(c, "x")
			}
		}, func(r *http.Response) error { _, err := io.Copy(io.Discard, r.Body); return err }, 3*say + idle},
		{"an upgraded one that only the client says anything on", func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, switched)
			io.Copy(io.Discard, c)
		}, func(r *http.Response) error {
			for range 3 {
				time.Sleep(say) // likewise
				if _, err := io.WriteString(r.Body.(io.Writer), "x"); err != nil {
					return fmt.Errorf("say something: %w", err)
				}
			}
			_, err := r.Body.Read(make([]byte, 1))
			return err
		}, 3*say + idle},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				start := time.Now()
				o := piped(t, outbound.Config{IdleTimeout: idle}, func(c net.Conn) {
					go tt.serve(c)
					<-t.Context().Done()
				})
				resp, err := o.Upgrade(outbound.Profile{Scheme: "http"}).RoundTrip(switching(t, someone))
				if err == nil && tt.client != nil {
					err = tt.client(resp)
					resp.Body.Close()
				}
				if took := time.Since(start); took != tt.after || !errors.Is(err, os.ErrDeadlineExceeded) || !isTimeout(err) {
					t.Errorf("%v after %s, want it timed out after %s", err, took, tt.after)
				}
			})
		})
	}
}

// TestDialTimeout has an egress that never comes back, and one that comes back too late. What is late is closed, and no
// more than a few are waited for.
func TestDialTimeout(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		near, far := net.Pipe()
		dialling := 0
		config := outbound.Config{DialTimeout: 5 * time.Second, Egress: func(context.Context, string, string) (net.Conn, error) {
			dialling++
			time.Sleep(time.Minute) // in a bubble: it passes at once
			return near, nil
		}}
		o := strict(t, config)
		start := time.Now()
		_, err := send(o.RoundTripper(outbound.Profile{Scheme: "http"}), request(t, "GET", someone, ""))
		var op *net.OpError
		if took := time.Since(start); took != 5*time.Second || !isTimeout(err) || !errors.As(err, &op) || op.Op != "dial" {
			t.Errorf("%v after %s", err, took)
		}
		if _, err := far.Read(make([]byte, 1)); err != io.EOF {
			t.Errorf("what came late: %v", err)
		}
		if took := time.Since(start); took != time.Minute || dialling != 1 {
			t.Errorf("closed after %s, %d dials", took, dialling)
		}
	})
}

// TestPoolEnds closes connections that nobody has used for 90 seconds.
func TestPoolEnds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		start := time.Now()
		var took time.Duration
		ended := make(chan struct{})
		o := piped(t, outbound.Config{}, func(c net.Conn) {
			http.ReadRequest(bufio.NewReader(c))
			io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
			io.Copy(io.Discard, c)
			took = time.Since(start)
			close(ended)
		})
		if _, err := send(o.RoundTripper(outbound.Profile{Scheme: "http"}), request(t, "GET", someone, "")); err != nil {
			t.Fatal(err)
		}
		<-ended
		if took != 90*time.Second {
			t.Errorf("closed after %s", took)
		}
	})
}
