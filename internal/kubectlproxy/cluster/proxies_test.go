package cluster_test

import (
	"bufio"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"sync"
	"testing"
)

// middle is a proxy between us and the API server: whatever it is asked for, it connects to one address.
type middle struct {
	listener net.Listener
	to       string
	mu       sync.Mutex
	asked    []string // the addresses that it was asked for
}

// newMiddle starts a proxy; open reads what is asked for from a connection, and says yes. With a configuration of TLS
// the way to the proxy is encrypted too.
func newMiddle(t *testing.T, a *api, open func(*bufio.ReadWriter) (string, error), secure ...*tls.Config) *middle {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range secure {
		l = tls.NewListener(l, &tls.Config{Certificates: c.Certificates})
	}
	m := &middle{listener: l, to: a.Listener.Addr().String()}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go m.serve(conn, open)
		}
	}()
	return m
}

func (m *middle) serve(conn net.Conn, open func(*bufio.ReadWriter) (string, error)) {
	defer conn.Close()
	rw := bufio.NewReadWriter(bufio.NewReader(conn), bufio.NewWriter(conn))
	host, err := open(rw)
	if err != nil || rw.Flush() != nil {
		return
	}
	m.mu.Lock()
	m.asked = append(m.asked, host)
	m.mu.Unlock()
	back, err := net.Dial("tcp", m.to)
	if err != nil {
		return
	}
	defer back.Close()
	go func() {
		defer conn.Close()
		defer back.Close()
		io.Copy(back, rw)
	}()
	io.Copy(conn, back)
}

// hosts returns what was asked for so far.
func (m *middle) hosts() []string {
	m.mu.Lock()
	defer m.mu.Unlock()
	return append([]string(nil), m.asked...)
}

func (m *middle) addr() string { return m.listener.Addr().String() }

// connect is an HTTP proxy (RFC 9110, section 9.3.6).
func connect(rw *bufio.ReadWriter) (string, error) {
	r, err := http.ReadRequest(rw.Reader)
	if err != nil {
		return "", err
	}
	if r.Method != http.MethodConnect {
		return "", fmt.Errorf("method %s", r.Method)
	}
	_, err = io.WriteString(rw, "HTTP/1.1 200 OK\r\n\r\n")
	return r.Host, err
}

// socks is a SOCKS5 proxy without authentication (RFC 1928).
func socks(rw *bufio.ReadWriter) (string, error) {
	head := make([]byte, 2)
	if _, err := io.ReadFull(rw, head); err != nil {
		return "", err
	}
	if _, err := rw.Discard(int(head[1])); err != nil {
		return "", err
	}
	rw.Write([]byte{5, 0})
	if err := rw.Flush(); err != nil {
		return "", err
	}
	request := make([]byte, 5) // version, command, reserved, kind of address, its first byte
	if _, err := io.ReadFull(rw, request); err != nil {
		return "", err
	}
	rest := make([]byte, map[byte]int{1: 3 + 2, 3: int(request[4]) + 2, 4: 15 + 2}[request[3]])
	if _, err := io.ReadFull(rw, rest); err != nil {
		return "", err
	}
	host, port := rest[:len(rest)-2], binary.BigEndian.Uint16(rest[len(rest)-2:])
	if request[3] != 3 {
		host = []byte(net.IP(append(request[4:5:5], host...)).String())
	}
	_, err := rw.Write([]byte{5, 0, 0, 1, 0, 0, 0, 0, 0, 0})
	return fmt.Sprintf("%s:%d", host, port), err
}

// plain returns the URL of a server without TLS that answers as a does.
func plain(t *testing.T, a *api) string {
	s := httptest.NewServer(a)
	t.Cleanup(s.Close)
	return s.URL
}

// port returns that of the API server.
func port(a *api) string {
	return a.URL[strings.LastIndex(a.URL, ":")+1:]
}
