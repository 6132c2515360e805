package httpproxy_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"
)

// TestDrainCutsStalledClients has a client that reads nothing of an endless answer.
func TestDrainCutsStalledClients(t *testing.T) {
	stalled, end := make(chan struct{}), make(chan struct{})
	defer close(end)
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		conn, _, err := http.NewResponseController(rw).Hijack()
		if err != nil {
			panic(err)
		}
		defer conn.Close()
		io.WriteString(conn, "HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n")
		for block := make([]byte, 1<<20); err == nil; { // until nothing fits in between any more
			conn.SetWriteDeadline(time.Now().Add(200 * time.Millisecond))
			_, err = conn.Write(block)
		}
		close(stalled)
		<-end
	})
	conn, _ := w.dial(t)
	send(t, conn, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
	<-stalled
	now, cancel := context.WithCancel(t.Context())
	cancel()
	done := make(chan error, 1)
	go func() { done <- w.proxy.Drain(now) }()
	select {
	case err := <-done:
		if err == nil || !strings.Contains(err.Error(), "1 requests") {
			t.Errorf("got %v, want that one request was cut", err)
		}
	case <-time.After(within):
		t.Error("the proxy waits for a client that reads nothing")
	}
}

// TestRefusedBodyIsNotAwaited has clients that send a part of a body and wait for what is said to it.
func TestRefusedBodyIsNotAwaited(t *testing.T) {
	w := newWorld(t, nil, func(w *world) { w.to.MaxBody = 10 })
	conn, r := w.dial(t)
	send(t, conn, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\npart")
	if resp := answerTo(t, r, "POST"); resp.StatusCode != http.StatusRequestEntityTooLarge {
		t.Errorf("got %s", resp.Status)
	}
}

// TestRefusedBodyKeepsTheConnection has one that sends all of it.
func TestRefusedBodyKeepsTheConnection(t *testing.T) {
	w := newWorld(t, func(http.ResponseWriter, *http.Request) {}, func(w *world) { w.to.MaxBody = 10 })
	conn, r := w.dial(t)
	send(t, conn, "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\n"+strings.Repeat("x", 100))
	resp := answerTo(t, r, "POST")
	if _, err := io.Copy(io.Discard, resp.Body); err != nil || resp.Close {
		t.Fatalf("got %v and %v", resp, err)
	}
	send(t, conn, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
	if resp := answerTo(t, r, "GET"); resp.StatusCode != http.StatusOK {
		t.Errorf("then %s", resp.Status)
	}
}

// TestPackedEventsAreNotHeldBack has an event packed before others that have not come in full, though much of them has.
func TestPackedEventsAreNotHeldBack(t *testing.T) {
	random := make([]byte, 64<<10)
	rand.NewChaCha8([32]byte{}).Read(random)
	const first = 5 << 10 // so that the next read from the connection is a large one
	var packed bytes.Buffer
	zip := gzip.NewWriter(&packed)
	for _, event := range [][]byte{random[:first], []byte("hello"), random[first:]} {
		zip.Write(event)
		zip.Flush()
	}
	end := make(chan struct{})
	defer close(end)
	back, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer back.Close()
	go func() {
		conn, err := back.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		if _, err := http.ReadRequest(bufio.NewReader(conn)); err != nil {
			return // an answer before the request would be none
		}
		conn.Write(append([]byte("HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nConnection: close\r\n\r\n"), packed.Bytes()[:29<<10]...))
		<-end
	}()
	w := newWorld(t, nil, func(w *world) { w.to.Decompress = true })
	w.to.Scheme, w.to.Host = "http", back.Addr().String()
	conn, r := w.dial(t)
	send(t, conn, "GET /x HTTP/1.1\r\nHost: a\r\n\r\n")
	want(t, answerTo(t, r, "GET").Body, string(random[:first])+"hello")
}

// TestUpgradeBeforeTheBody has a target that changes the protocol in the middle of a request.
func TestUpgradeBeforeTheBody(t *testing.T) {
	w := newWorld(t, switches(switching("x"), echo))
	conn, r := w.dial(t)
	send(t, conn, asking+"x\r\nContent-Length: 10\r\n\r\npart")
	if resp := answerTo(t, r, "GET"); resp.StatusCode != http.StatusBadGateway {
		t.Errorf("got %s", resp.Status)
	}
}

// TestCodesThatAreNone has a target whose code net/http would panic at.
func TestCodesThatAreNone(t *testing.T) {
	w := newWorld(t, switches("HTTP/1.1 050 Odd\r\nContent-Length: 0\r\n\r\n", echo))
	if got := w.ask(t, "GET /x HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"); !strings.HasPrefix(got, "HTTP/1.1 502 ") {
		t.Errorf("got %q", got)
	}
}

// TestOldClientsSeeACut has a client of HTTP/1.0, whose answers end with the connection.
func TestOldClientsSeeACut(t *testing.T) {
	for _, secure := range []bool{false, true} {
		w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
			io.WriteString(rw, "part")
			http.NewResponseController(rw).Flush()
			panic(http.ErrAbortHandler)
		}, func(w *world) { w.secure = secure })
		plain, _ := w.dial(t)
		var conn net.Conn = plain
		if secure {
			conn = tls.Client(plain, &tls.Config{InsecureSkipVerify: true})
		}
		send(t, conn, "GET /x HTTP/1.0\r\nHost: a\r\n\r\n")
		if got, err := io.ReadAll(conn); err == nil {
			t.Errorf("got %q and a proper end", got)
		}
	}
}
