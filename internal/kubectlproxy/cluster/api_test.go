package cluster_test

import (
	"bufio"
	"crypto/tls"
	"encoding/pem"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"strconv"
	"sync"
	"testing"
)

// api is an API server as far as its door: it knows who may come in, and remembers who came.
type api struct {
	*httptest.Server
	mu      sync.Mutex
	tokens  map[string]bool // those that are accepted; nil: nobody is asked
	serials map[string]bool // of client certificates that are accepted; nil: nobody is asked
	seen    []*http.Request
	bodies  []string
	conns   map[net.Conn]bool // all there ever were; whether they are open, and HTTP
	arrived chan struct{}     // if set: gets a word for each request before it is answered
	gate    chan struct{}     // if set: requests wait for it
}

func newAPI(t *testing.T, change ...func(*httptest.Server)) *api {
	a := &api{conns: map[net.Conn]bool{}}
	a.Server = httptest.NewUnstartedServer(a)
	a.EnableHTTP2 = true
	a.Config.ErrorLog = slog.NewLogLogger(slog.DiscardHandler, 0) // handshakes fail on purpose
	a.Config.ConnState = func(c net.Conn, s http.ConnState) {
		a.mu.Lock()
		defer a.mu.Unlock()
		switch s {
		case http.StateNew:
			a.conns[c] = true
		case http.StateClosed, http.StateHijacked:
			a.conns[c] = false
		}
	}
	for _, f := range change {
		f(a.Server)
	}
	a.StartTLS()
	t.Cleanup(a.Close)
	return a
}

// asksForCertificates has the server ask for client certificates, and accept any.
func asksForCertificates(s *httptest.Server) {
	s.TLS = &tls.Config{ClientAuth: tls.RequestClientCert}
}

// accept replaces the tokens that are accepted.
func (a *api) accept(tokens ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.tokens = map[string]bool{}
	for _, token := range tokens {
		a.tokens[token] = true
	}
}

// acceptCertificates replaces the serial numbers that are accepted.
func (a *api) acceptCertificates(serials ...string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.serials = map[string]bool{}
	for _, s := range serials {
		a.serials[s] = true
	}
}

// requests returns what came so far.
func (a *api) requests() []*http.Request {
	a.mu.Lock()
	defer a.mu.Unlock()
	return append([]*http.Request(nil), a.seen...)
}

// last returns the request that came last, and its body.
func (a *api) last() (*http.Request, string) {
	a.mu.Lock()
	defer a.mu.Unlock()
	return a.seen[len(a.seen)-1], a.bodies[len(a.bodies)-1]
}

func (a *api) connections() int {
	a.mu.Lock()
	defer a.mu.Unlock()
	return len(a.conns)
}

// open returns how many connections are open and have not been upgraded.
func (a *api) open() (n int) {
	a.mu.Lock()
	defer a.mu.Unlock()
	for _, open := range a.conns {
		if open {
			n++
		}
	}
	return n
}

func (a *api) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	refused := a.refuses(r)
	body := ""
	if part := r.Header.Get("X-Read-Part"); refused && part != "" {
		n, _ := strconv.Atoi(part)
		http.NewResponseController(w).EnableFullDuplex() // else net/http waits for the rest before it answers
		io.ReadFull(r.Body, make([]byte, n))
		w.Header().Set("Connection", "close") // the rest of the body is in the way of another request
	}
	if !refused || r.Header.Get("X-Read-First") != "" { // else: the body is refused unread
		data, err := io.ReadAll(r.Body)
		if err != nil {
			return
		}
		body = string(data)
	}
	a.mu.Lock()
	a.seen, a.bodies = append(a.seen, r), append(a.bodies, body)
	arrived, gate := a.arrived, a.gate
	a.mu.Unlock()
	if arrived != nil {
		arrived <- struct{}{}
	}
	if gate != nil {
		<-gate
	}
	switch {
	case refused:
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(http.StatusUnauthorized)
		io.WriteString(w, `{"kind":"Status","code":401}`)
	case r.Header.Get("Upgrade") != "":
		upgrade(w, r)
	case r.URL.Query().Get("watch") != "":
		watch(w, r)
	default:
		fmt.Fprintf(w, "%s %s %s", r.Proto, r.Method, r.URL.EscapedPath())
	}
}

func (a *api) refuses(r *http.Request) bool {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.tokens != nil && !a.tokens[bearer(r)] {
		return true
	}
	return a.serials != nil && !a.serials[serial(r)]
}

// bearer returns the token of a request.
func bearer(r *http.Request) string {
	const mark = "Bearer "
	if h := r.Header.Get("Authorization"); len(h) > len(mark) {
		return h[len(mark):]
	}
	return ""
}

// serial returns the serial number of the client's certificate.
func serial(r *http.Request) string {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return ""
	}
	return r.TLS.PeerCertificates[0].SerialNumber.String()
}

// watch sends a line, and lasts until the client goes.
func watch(w http.ResponseWriter, r *http.Request) {
	fmt.Fprintf(w, "%s event\n", r.Proto)
	w.(http.Flusher).Flush()
	<-r.Context().Done()
}

// upgrade speaks "echo": it sends back each line.
func upgrade(w http.ResponseWriter, r *http.Request) {
	conn, rw, err := w.(http.Hijacker).Hijack()
	if err != nil {
		panic(err)
	}
	defer conn.Close()
	fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: %s\r\n\r\n", r.Header.Get("Upgrade"))
	rw.Flush()
	for {
		line, err := rw.ReadString('\n')
		if err != nil {
			return
		}
		rw.WriteString("echo " + line)
		rw.Flush()
	}
}

// authority returns the certificate that the server is known by, as PEM.
func (a *api) authority() []byte {
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: a.Certificate().Raw})
}

// firstLine reads the first line of an answer that lasts.
func firstLine(t *testing.T, r io.Reader) string {
	t.Helper()
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil {
		t.Fatalf("read a line: %v", err)
	}
	return line
}
