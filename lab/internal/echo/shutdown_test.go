package echo_test

import (
	"io"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"varco.dev/lab/internal/echo"
)

// ended tells when stop returned.
func ended(t *testing.T, stop func() error) <-chan time.Time {
	done := make(chan time.Time, 1)
	go func() {
		if err := stop(); err != nil {
			t.Error(err)
		}
		done <- time.Now()
	}()
	return done
}

// untilDraining waits until answers ask to connect anew, as they do from the signal on.
func untilDraining(t *testing.T, url string) {
	t.Helper()
	c := &http.Client{}
	defer c.CloseIdleConnections()
	for range 1000 {
		if resp, _ := get(t, c, url); resp.Close {
			return
		}
		time.Sleep(time.Millisecond) // between two questions
	}
	t.Fatal("the server does not drain")
}

func TestServesNewConnectionsDuringTheDelay(t *testing.T) {
	const delay = 700 * time.Millisecond
	s, stop := startStoppable(t, echo.Config{ShutdownDelay: delay, DrainTimeout: 5 * time.Second})
	url := "http://" + s.Addr("http").String()
	begin := time.Now()
	done := ended(t, stop)
	untilDraining(t, url)
	for i := 0; time.Since(begin) < delay/2; i++ {
		if resp, _ := get(t, client(), url+"/readyz"); resp.StatusCode != 200 {
			t.Errorf("request %d: status %d", i, resp.StatusCode)
		}
		c, err := net.Dial("tcp", s.Addr("tcp").String())
		if err != nil {
			t.Fatalf("TCP connection %d: %v", i, err)
		}
		c.(*net.TCPConn).CloseWrite()
		if b, err := io.ReadAll(c); err != nil || !strings.HasPrefix(string(b), "pod=") {
			t.Errorf("TCP connection %d: %q, %v", i, b, err)
		}
		c.Close()
	}
	if at := <-done; at.Sub(begin) < delay {
		t.Errorf("stopped %s after the signal, before the delay was over", at.Sub(begin))
	}
	if _, err := net.Dial("tcp", s.Addr("http").String()); err == nil {
		t.Error("still accepts")
	}
}

func TestFinishesOpenRequests(t *testing.T) {
	s, stop := startStoppable(t, echo.Config{DrainTimeout: 10 * time.Second})
	resp, err := client().Get("http://" + s.Addr("http").String() + "/slow?delay=1s&bytes=1000")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	conn, err := net.Dial("tcp", s.Addr("tcp").String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	io.ReadFull(conn, make([]byte, 4)) // the server has accepted

	begin := time.Now()
	done := ended(t, stop)
	if b, err := io.ReadAll(resp.Body); err != nil || len(b) != 1000 {
		t.Errorf("open request: %d bytes, %v", len(b), err)
	}
	io.WriteString(conn, "last words")
	conn.(*net.TCPConn).CloseWrite()
	if b, err := io.ReadAll(conn); err != nil || !strings.HasSuffix(string(b), "last words") {
		t.Errorf("open connection: %q, %v", b, err)
	}
	if took := (<-done).Sub(begin); took > 5*time.Second {
		t.Errorf("stopping took %s, longer than what was open", took)
	}
}

func TestCutsOffWhatDoesNotEnd(t *testing.T) {
	s, stop := startStoppable(t, echo.Config{DrainTimeout: 200 * time.Millisecond})
	conn, err := net.Dial("tcp", s.Addr("tcp").String())
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	resp, err := client().Get("http://" + s.Addr("http").String() + "/slow?delay=1h")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	begin := time.Now()
	if took := (<-ended(t, stop)).Sub(begin); took > 3*time.Second {
		t.Errorf("stopping took %s", took)
	}
}

func TestEndlessAnswersEndAtOnce(t *testing.T) {
	s, stop := startStoppable(t, echo.Config{DrainTimeout: 10 * time.Second})
	events, err := client().Get("http://" + s.Addr("http").String() + "/events?interval=1h")
	if err != nil {
		t.Fatal(err)
	}
	defer events.Body.Close()
	ws, _, err := websocket.DefaultDialer.Dial("ws://"+s.Addr("http").String()+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer ws.Close()
	ws.SetReadDeadline(time.Now().Add(5 * time.Second))
	ws.ReadMessage() // the greeting
	begin := time.Now()
	done := ended(t, stop)
	if _, err := io.ReadAll(events.Body); err != nil {
		t.Errorf("events: %v", err)
	}
	if _, _, err := ws.ReadMessage(); !websocket.IsCloseError(err, websocket.CloseGoingAway) {
		t.Errorf("WebSocket: %v, want it closed as going away", err)
	}
	if took := (<-done).Sub(begin); took > 3*time.Second {
		t.Errorf("stopping took %s", took)
	}
}
