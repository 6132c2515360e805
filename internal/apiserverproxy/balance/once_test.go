package balance_test

import (
	"bufio"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"net/netip"
	"strings"
	"sync"
	"testing"
)

// TestSentOnce has many requests go to targets that fail at random, in all the ways there are. One with side effects is never
// seen twice by any of them.
func TestSentOnce(t *testing.T) {
	var mu sync.Mutex
	seen, answered := map[string]int{}, map[string]bool{}
	t.Cleanup(func() { // the targets have ended by then
		for id, n := range seen {
			if n > 1 {
				t.Errorf("request %s was seen %d times", id, n)
			}
		}
		for id := range answered {
			if seen[id] != 1 {
				t.Errorf("request %s has an answer and was seen %d times", id, seen[id])
			}
		}
	})
	note := func(r *http.Request) {
		mu.Lock()
		defer mu.Unlock()
		seen[r.Header.Get("X-Id")]++
	}
	endpoints := []netip.AddrPort{refusing(t)}
	for i := range uint64(6) {
		random := rand.New(rand.NewPCG(i, 1))
		chance := func(n int) bool {
			mu.Lock()
			defer mu.Unlock()
			return random.IntN(n) == 0
		}
		a, _ := odd(t, func(c *net.TCPConn, r *bufio.Reader, next func() *http.Request) { unsteady(c, next, note, chance) })
		endpoints = append(endpoints, a)
	}
	w := newWorld(t, endpoints...)
	const workers, each = 16, 60
	var wg sync.WaitGroup
	for i := range workers {
		wg.Go(func() {
			for n := range each {
				id := fmt.Sprint(i, "-", n)
				if w.post(t, id, n%3) {
					mu.Lock()
					answered[id] = true
					mu.Unlock()
				}
			}
		})
	}
	wg.Wait()
	worked := len(answered)
	retries := metric(t, w.balancer, "varco_apiserver_proxy_endpoint_retries_total", "connect")
	if worked < workers*each/4 || worked == workers*each || retries == 0 {
		t.Errorf("%d of %d requests worked, with %v retries: that says nothing", worked, workers*each, retries)
	}
}

// post sends a request with a body of one of three kinds: none, of known and of unknown length.
func (w *world) post(t testing.TB, id string, kind int) bool {
	var body io.Reader
	if kind > 0 {
		body = &pipe{Reader: strings.NewReader(id)}
	}
	r, err := http.NewRequestWithContext(t.Context(), []string{"POST", "PATCH"}[len(id)%2], "http://ignored/x", body)
	if err != nil {
		t.Error(err)
		return false
	}
	if kind == 1 {
		r.ContentLength = int64(len(id))
	}
	r.Header.Set("X-Id", id)
	_, _, err = do(w.balancer.Exchange(r, netip.Addr{}, w.to).RoundTripper(), r)
	return err == nil
}

// unsteady serves until something happens.
func unsteady(c *net.TCPConn, next func() *http.Request, note func(*http.Request), chance func(int) bool) {
	if chance(8) {
		reset(c)
		return
	}
	for {
		r := next()
		if r == nil {
			return
		}
		note(r)
		switch {
		case chance(12):
			reset(c)
			return
		case chance(12):
			return
		}
		if _, err := io.Copy(io.Discard, r.Body); err != nil {
			return
		}
		switch {
		case chance(12):
			reset(c)
			return
		case chance(12):
			io.WriteString(c, "HTTP/1.1 20")
			return
		}
		io.WriteString(c, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
		switch {
		case chance(6): // as servers end idle connections, without a word
			reset(c)
			return
		case chance(6):
			return
		}
	}
}
