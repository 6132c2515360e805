package health_test

import (
	"bufio"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"io"
	"math/big"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync"
	"syscall"
	"testing"
	"time"
)

// authority signs certificates that are valid in the time of a synctest bubble, which begins in 2000, as well as now.
type authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t testing.TB) *authority {
	t.Helper()
	a := &authority{key: newKey(t)}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Date(1990, 1, 1, 0, 0, 0, 0, time.UTC), NotAfter: time.Date(2190, 1, 1, 0, 0, 0, 0, time.UTC),
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &a.key.PublicKey, a.key)
	if err == nil {
		a.cert, err = x509.ParseCertificate(der)
	}
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func newKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// leaf returns a certificate of all backends and clients, valid until a time; the zero time: long.
func (a *authority) leaf(t testing.TB, until time.Time) tls.Certificate {
	t.Helper()
	if until.IsZero() {
		until = a.cert.NotAfter
	}
	key := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(2), NotBefore: a.cert.NotBefore, NotAfter: until, DNSNames: []string{"apiserver"},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
		IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
	}
	for _, addr := range backendsOf("abcdefghijklmnopqrstuvwxyz") {
		template.IPAddresses = append(template.IPAddresses, addr.Addr().AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) pem() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.cert.Raw})
}

// way is how a peer is reached.
type way uint8

const (
	works     way = iota
	refuses       // ECONNREFUSED
	blackhole     // what is sent is lost
	noRoute       // EHOSTUNREACH
	lacking       // EMFILE of our own
	closes        // it accepts, and closes
	garbage       // it speaks, but no TLS
	mute          // it accepts, and says nothing
)

// peer is an API server that can be stopped as by SIGSTOP, and be at fault in other ways.
type peer struct {
	mu      sync.Mutex // guards the fields below
	way     way
	tls     *tls.Config
	answer  func(w io.Writer, r *http.Request) (more bool)
	delay   time.Duration // of answers
	running chan struct{} // closed while it runs
	conns   map[net.Conn]bool
	dials   int
	asked   []*http.Request
	when    []time.Time // of asked
}

func newPeer(cert tls.Certificate) *peer {
	p := &peer{tls: &tls.Config{Certificates: []tls.Certificate{cert}}, answer: status(200, "ok"), conns: map[net.Conn]bool{}, running: make(chan struct{})}
	close(p.running)
	return p
}

// status returns an answer.
func status(code int, body string) func(io.Writer, *http.Request) bool {
	return func(w io.Writer, _ *http.Request) bool {
		_, err := fmt.Fprintf(w, "HTTP/1.1 %d %s\r\nContent-Length: %d\r\n\r\n%s", code, http.StatusText(code), len(body), body)
		return err == nil
	}
}

// raw answers with these bytes, and closes the connection.
func raw(s string) func(io.Writer, *http.Request) bool {
	return func(w io.Writer, _ *http.Request) bool {
		io.WriteString(w, s)
		return false
	}
}

// set changes the peer.
func (p *peer) set(change func(p *peer)) {
	p.mu.Lock()
	defer p.mu.Unlock()
	change(p)
}

func (p *peer) stop() {
	p.set(func(p *peer) {
		if p.runs() {
			p.running = make(chan struct{})
		}
	})
}

func (p *peer) cont() {
	p.set(func(p *peer) {
		if !p.runs() {
			close(p.running)
		}
	})
}

// runs wants the lock.
func (p *peer) runs() bool {
	select {
	case <-p.running:
		return true
	default:
		return false
	}
}

func (p *peer) wait() {
	p.mu.Lock()
	running := p.running
	p.mu.Unlock()
	<-running
}

// drop closes all connections.
func (p *peer) drop() {
	p.set(func(p *peer) {
		for c := range p.conns {
			c.Close()
		}
	})
}

func (p *peer) counts() (dials, asked, open int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.dials, len(p.asked), len(p.conns)
}

// dial is for Config.Dial.
func (p *peer) dial(ctx context.Context, _ netip.AddrPort) (net.Conn, error) {
	p.mu.Lock()
	p.dials++
	way := p.way
	p.mu.Unlock()
	switch way {
	case refuses:
		return nil, refusal(syscall.ECONNREFUSED)
	case noRoute:
		return nil, refusal(syscall.EHOSTUNREACH)
	case lacking:
		return nil, refusal(syscall.EMFILE)
	case blackhole:
		<-ctx.Done()
		return nil, &net.OpError{Op: "dial", Net: "tcp", Err: ctx.Err()}
	}
	client, server := net.Pipe()
	p.set(func(p *peer) { p.conns[server] = true })
	go p.serve(stoppable{server, p}, way)
	return client, nil
}

func refusal(errno syscall.Errno) error {
	return &net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", errno)}
}

// stoppable does nothing while the peer is stopped, although what it is sent is acknowledged.
type stoppable struct {
	net.Conn
	p *peer
}

func (s stoppable) Read(b []byte) (int, error) {
	n, err := s.Conn.Read(b)
	s.p.wait()
	return n, err
}

func (s stoppable) Write(b []byte) (int, error) {
	s.p.wait()
	return s.Conn.Write(b)
}

func (p *peer) serve(conn stoppable, way way) {
	defer func() {
		conn.Close()
		p.set(func(p *peer) { delete(p.conns, conn.Conn) })
	}()
	p.wait()
	switch way {
	case closes:
		return
	case mute:
		io.Copy(io.Discard, conn)
		return
	case garbage:
		go io.Copy(io.Discard, conn)
		io.WriteString(conn, "SSH-2.0-OpenSSH_9.9\r\n")
		return
	}
	p.mu.Lock()
	config := p.tls
	p.mu.Unlock()
	c := tls.Server(conn, config)
	for r := bufio.NewReader(c); p.serveOne(c, r); {
	}
}

// serveOne answers one request.
func (p *peer) serveOne(c io.Writer, r *bufio.Reader) bool {
	req, err := http.ReadRequest(r)
	if err != nil {
		return false
	}
	p.mu.Lock()
	p.asked, p.when = append(p.asked, req), append(p.when, time.Now())
	delay, answer := p.delay, p.answer
	p.mu.Unlock()
	time.Sleep(delay) // of the bubble: the answer is late
	return answer(c, req)
}
