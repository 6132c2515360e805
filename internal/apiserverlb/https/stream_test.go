package https_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/apiserverlb/https"
)

// open begins a request and returns the answer, whose body is to come.
func open(t *testing.T, c *http.Client, url string, header http.Header) *http.Response {
	t.Helper()
	r, err := http.NewRequestWithContext(t.Context(), "GET", url, nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, values := range header {
		r.Header[name] = values
	}
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// TestWatchIsStreamed wants each event to come as soon as it is sent: the next one is sent only then.
func TestWatchIsStreamed(t *testing.T) {
	for version := 1; version <= 2; version++ {
		s := newStage(t, nil)
		for _, header := range []http.Header{token(), nil} {
			events := make(chan string) // of this watch alone
			for _, a := range s.apis {
				a.answers(watching(events))
			}
			resp := open(t, s.client(t, nil, version), s.url+pods+"?watch=true", header)
			lines := bufio.NewReader(resp.Body)
			for i := range 20 {
				if i > 0 {
					events <- fmt.Sprintf("{\"n\":%d}\n", i)
				}
				if line, err := lines.ReadString('\n'); err != nil || i > 0 && line != fmt.Sprintf("{\"n\":%d}\n", i) {
					t.Fatalf("event %d: %q %v", i, line, err)
				}
			}
			resp.Body.Close()
		}
		waitFor(t, func() bool { return s.balancer.leased.Load() == 0 })
	}
}

// echo is an API server that agrees to another protocol, in which it says back what it hears.
func echo(w http.ResponseWriter, _ *http.Request) {
	conn, rw, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer conn.Close()
	io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\nhello\n")
	io.Copy(conn, rw)
}

// upgrade makes an upgraded connection, through which hello has come.
func (s *stage) upgrade(t *testing.T) (net.Conn, *bufio.Reader) {
	t.Helper()
	conn, err := tls.Dial("tcp", s.addr.String(), s.tls(s.clients.pair(t, "bob")))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	fmt.Fprintf(conn, "POST %s/b/exec HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n", pods)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil || resp.StatusCode != 101 {
		t.Fatalf("answer %+v %v", resp, err)
	}
	if line, err := r.ReadString('\n'); err != nil || line != "hello\n" {
		t.Fatalf("heard %q %v", line, err)
	}
	return conn, r
}

func say(t *testing.T, c net.Conn, r *bufio.Reader, line string) {
	t.Helper()
	if _, err := io.WriteString(c, line); err != nil {
		t.Fatal(err)
	}
	if got, err := r.ReadString('\n'); err != nil || got != line {
		t.Fatalf("said %q, heard %q %v", line, got, err)
	}
}

// TestUpgradesAreStreamed says something and waits for the answer, many times.
func TestUpgradesAreStreamed(t *testing.T) {
	s := newStage(t, nil)
	for _, a := range s.apis {
		a.answers(echo)
	}
	conn, r := s.upgrade(t)
	for i := range 20 {
		say(t, conn, r, fmt.Sprintln("line", i))
	}
	var user string
	for _, a := range s.apis {
		for _, got := range a.take() {
			user = got.Header.Get("X-Remote-User")
		}
	}
	if stats := s.Stats(); user != "bob" || stats.Upgrades != 1 || s.balancer.leased.Load() != 1 {
		t.Errorf("of %q, %+v, %d leases", user, stats, s.balancer.leased.Load())
	}
	conn.Close()
	waitFor(t, func() bool { return s.Stats().Upgrades == 0 && s.balancer.leased.Load() == 0 })
}

// TestEnd loses a backend on which there are a watch, a log, an upgraded connection, a list and a change.
func TestEnd(t *testing.T) {
	s := newStage(t, nil)
	one := s.apis[0]
	s.balancer.leave(s.apis[1:]...)
	one.answers(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasSuffix(r.URL.Path, "/exec"):
			echo(w, r)
		case r.URL.RawQuery != "":
			watching(nil)(w, r)
		default:
			<-r.Context().Done()
		}
	})
	client := s.client(t, s.clients.pair(t, "bob"), 2)
	watch, logs := open(t, client, s.url+pods+"?watch=true", nil), open(t, client, s.url+pods+"/b/log?follow=true", nil)
	_, exec := s.upgrade(t)
	codes := map[string]chan int{"GET": make(chan int, 1), "POST": make(chan int, 1)}
	for method, code := range codes {
		go func() {
			resp, _, err := ask(client, method, s.url+pods, nil, nil)
			if err != nil {
				t.Error(err)
				code <- 0
				return
			}
			code <- resp.StatusCode
		}()
	}
	waitFor(t, func() bool { one.mu.Lock(); defer one.mu.Unlock(); return len(one.seen) == 5 })
	s.balancer.leave(one)
	if n := s.End(one.addr); n != 5 {
		t.Errorf("%d requests were ended", n)
	}
	if _, err := io.Copy(io.Discard, watch.Body); err != nil {
		t.Errorf("the watch ended with %v", err)
	}
	if _, err := io.Copy(io.Discard, logs.Body); err == nil {
		t.Error("the log ended as if it were whole")
	}
	if _, err := exec.ReadByte(); err == nil || err == io.EOF {
		t.Errorf("the upgraded connection ended with %v", err)
	}
	if get, post := <-codes["GET"], <-codes["POST"]; get != 200 || post != 502 {
		t.Errorf("answers %d and %d", get, post)
	}
	waitFor(t, func() bool { return s.balancer.leased.Load() == 0 })
	if n := s.balancer.count(https.Broken); n != 0 {
		t.Errorf("it was told %d times of what it has said itself", n)
	}
}

// TestShed wants some watches of one backend to end in order, those that began first, and nothing else.
func TestShed(t *testing.T) {
	s := newStage(t, nil)
	one := s.apis[0]
	s.balancer.leave(s.apis[1:]...)
	one.answers(func(w http.ResponseWriter, r *http.Request) {
		if strings.HasSuffix(r.URL.Path, "/exec") {
			echo(w, r)
		} else {
			watching(nil)(w, r)
		}
	})
	client := s.client(t, s.clients.pair(t, "bob"), 2)
	exec, heard := s.upgrade(t)
	logs := open(t, client, s.url+pods+"/b/log?follow=true", nil)
	var watches []*http.Response
	for range 4 {
		watches = append(watches, open(t, client, s.url+pods+"?watch=true", nil))
	}
	young := s.Shed(one.addr, 9)
	time.Sleep(1100 * time.Millisecond) // those that have lasted for less than a second are not for it
	for _, none := range []int{young, s.Shed(s.apis[1].addr, 9), s.Shed(one.addr, 0)} {
		if none != 0 {
			t.Errorf("%d were shed", none)
		}
	}
	if n := s.Shed(one.addr, 3); n != 3 {
		t.Errorf("%d were shed", n)
	}
	for _, w := range watches[:3] {
		if _, err := io.Copy(io.Discard, w.Body); err != nil {
			t.Errorf("a watch ended with %v", err)
		}
	}
	if n := s.Shed(one.addr, 9); n != 1 {
		t.Errorf("%d were left", n)
	}
	say(t, exec, heard, "still here\n")
	waitFor(t, func() bool { return s.Stats().Requests == 2 })
	logs.Body.Close()
}

// TestWatchOfBrokenBackendEndsInOrder wants clients to go on where they were.
func TestWatchOfBrokenBackendEndsInOrder(t *testing.T) {
	s := newStage(t, nil)
	for _, a := range s.apis {
		a.answers(watching(nil))
	}
	for version := 1; version <= 2; version++ {
		resp := open(t, s.client(t, nil, version), s.url+pods+"?watch=true", token())
		for _, a := range s.apis {
			a.CloseClientConnections()
		}
		if content, err := io.ReadAll(resp.Body); err != nil || string(content) != "{\"first\":true}\n" {
			t.Errorf("the watch ended with %q %v", content, err)
		}
	}
}

// TestNothingIsLeft wants neither goroutines nor leases to be left.
func TestNothingIsLeft(t *testing.T) {
	before := runtime.NumGoroutine()
	t.Run("stage", func(t *testing.T) {
		s := newStage(t, nil)
		for _, a := range s.apis {
			a.answers(func(w http.ResponseWriter, r *http.Request) {
				switch {
				case strings.HasSuffix(r.URL.Path, "/exec"):
					echo(w, r)
				case r.URL.RawQuery != "":
					watching(nil)(w, r)
				}
			})
		}
		for range 20 {
			client := s.client(t, s.clients.pair(t, "bob"), 2)
			open(t, client, s.url+pods+"?watch=true", nil)
			do(t, client, "GET", s.url+pods, nil, nil)
			s.upgrade(t)
		}
		if err := s.stop(); err != nil {
			t.Error(err)
		}
		if stats, leased := s.Stats(), s.balancer.leased.Load(); stats.Connections != 0 || stats.Requests != 0 || leased != 0 {
			t.Errorf("left: %+v, %d leases", stats, leased)
		}
		waitFor(t, func() bool { return s.Stats().Opened == 0 })
	})
	waitFor(t, func() bool { return runtime.NumGoroutine() <= before+2 })
}

// TestDrain wants watches to end in order, other requests to come to their end, and what does not to be cut in time.
func TestDrain(t *testing.T) {
	s := newStage(t, nil)
	finish := make(chan struct{})
	for _, a := range s.apis {
		a.answers(func(w http.ResponseWriter, r *http.Request) {
			switch {
			case strings.HasSuffix(r.URL.Path, "/exec"):
				echo(w, r)
			case r.URL.RawQuery != "":
				watching(nil)(w, r)
			default:
				<-finish
				io.WriteString(w, "done")
			}
		})
	}
	client := s.client(t, s.clients.pair(t, "bob"), 2)
	watch := open(t, client, s.url+pods+"?watch=true", nil)
	_, exec := s.upgrade(t)
	answer := make(chan string, 1)
	go func() {
		_, body, err := ask(client, "GET", s.url+pods, nil, nil)
		answer <- fmt.Sprint(body, err)
	}()
	waitFor(t, func() bool { return s.Stats().Requests == 3 })
	ctx, cancel := timeout(t, time.Second)
	defer cancel()
	drained := make(chan error, 1)
	go func() { drained <- s.Drain(ctx) }()
	if _, err := io.Copy(io.Discard, watch.Body); err != nil {
		t.Errorf("the watch ended with %v", err)
	}
	if s.Ready() == nil {
		t.Error("it is ready")
	}
	close(finish)
	if got := <-answer; got != "done<nil>" {
		t.Errorf("the answer was %s", got)
	}
	if err := <-drained; err == nil || !strings.Contains(err.Error(), "1 of them upgraded") {
		t.Errorf("drained with %v", err)
	}
	if _, err := exec.ReadByte(); err == nil {
		t.Error("the upgraded connection is still there")
	}
	if conn, err := net.Dial("tcp", s.addr.String()); err == nil {
		conn.Close()
		t.Error("it accepts connections")
	}
}
