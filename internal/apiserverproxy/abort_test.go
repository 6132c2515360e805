package apiserverproxy_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"
)

// TestAbortedClients wants nothing to be left of clients that leave at the worst moments: no goroutine, no descriptor, no
// place of a limit.
func TestAbortedClients(t *testing.T) {
	const clients, atATime = 10_000, 50
	s, _ := with(t, func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/endless":
			for r.Context().Err() == nil {
				if _, err := w.Write(make([]byte, 4<<10)); err != nil {
					return
				}
				_ = http.NewResponseController(w).Flush()
			}
		case "/silent":
			<-r.Context().Done()
		case "/body":
			_, _ = io.Copy(io.Discard, r.Body)
		case "/page":
			w.Header().Set("Content-Type", "text/html")
			fmt.Fprint(w, "<a href='/x")
			_ = http.NewResponseController(w).Flush()
			<-r.Context().Done()
		default:
			switches(func(_ net.Conn, r *bufio.Reader) { _, _ = io.Copy(io.Discard, r) })(w, r)
		}
	})
	ways := []struct {
		raw  string
		wait bool // for the first byte of the answer
	}{
		{simple("GET", service+"/endless"), true},
		{simple("GET", service+"/silent"), false},
		{simple("GET", service+"/page"), true},
		{simple("POST", service+"/body", "Content-Length: 100000") + "half", false},
		{simple("POST", service+"/body", "Transfer-Encoding: chunked") + "5\nhello\n", false},
		{wantsUpgrade(service + "/ws"), true},
		{"GET " + service + "/silent HTTP/1.1\nHos", false},
	}
	abort := func(i int) {
		way := ways[i%len(ways)]
		conn, err := net.Dial("tcp", s.ours.Listener.Addr().String())
		if err != nil {
			t.Error(err)
			return
		}
		defer conn.Close()
		_ = conn.SetDeadline(time.Now().Add(20 * time.Second))
		if _, err := io.WriteString(conn, strings.ReplaceAll(way.raw, "\n", "\r\n")); err != nil {
			t.Error(err)
		}
		if way.wait {
			if _, err := conn.Read(make([]byte, 1)); err != nil {
				t.Errorf("%q: %v", way.raw, err)
			}
		}
		if i%2 == 0 {
			_ = conn.(*net.TCPConn).SetLinger(0) // leaves by a reset
		}
	}
	abort(0)
	goroutines, files := runtime.NumGoroutine(), openFiles(t)
	var wg sync.WaitGroup
	next := make(chan int)
	for range atATime {
		wg.Go(func() {
			for i := range next {
				abort(i)
			}
		})
	}
	for i := range clients {
		next <- i
	}
	close(next)
	wg.Wait()
	s.ours.CloseClientConnections()
	// A few connections to the target are kept for the next clients.
	const kept = 120
	for began := time.Now(); ; runtime.Gosched() {
		g, f := runtime.NumGoroutine(), openFiles(t)
		if g <= goroutines+4*kept && f <= files+2*kept {
			break
		}
		if time.Since(began) > 20*time.Second {
			buf := make([]byte, 1<<20)
			t.Fatalf("%d goroutines and %d files are left, %d and %d were there before\n%s", g, f, goroutines, files, buf[:runtime.Stack(buf, true)])
		}
	}
	if a := s.get("/api/v1/namespaces/ns/services/web/proxy/body"); a.code != 200 {
		t.Errorf("afterwards: got %d %s", a.code, a.body)
	}
}

// openFiles returns how many descriptors this process has.
func openFiles(t *testing.T) int {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}
