package echo

import (
	"fmt"
	"net/http"
	"time"

	"github.com/gorilla/websocket"
)

// events sends one server-sent event each interval, count of them or, for 0, until the client leaves or the server
// stops.
func (s *Server) events(w http.ResponseWriter, r *http.Request) {
	interval, ok := queryOf(w, r).duration("interval", time.Second)
	if !ok {
		return
	}
	count, ok := queryOf(w, r).number("count", 0)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "text/event-stream")
	w.Header().Set("Cache-Control", "no-cache")
	tick := time.NewTicker(max(interval, time.Millisecond))
	defer tick.Stop()
	out := http.NewResponseController(w)
	for i := int64(1); ; i++ {
		fmt.Fprintf(w, "id: %d\ndata: %s\n", i, s.cfg.Identity.Line(stringAddr(r.RemoteAddr)))
		if _, err := fmt.Fprint(w, "\n"); err != nil || out.Flush() != nil || i == count {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		case <-s.stopping:
			return
		}
	}
}

// webSocket tells who answers, then sends each message back, until the client closes or the server stops.
func (s *Server) webSocket(w http.ResponseWriter, r *http.Request) {
	up := websocket.Upgrader{CheckOrigin: func(*http.Request) bool { return true }}
	header := http.Header{"X-Pod": {s.cfg.Identity.Pod}, "X-Node": {s.cfg.Identity.Node}, "X-Query": {r.URL.RawQuery},
		"X-Protocols": r.Header["Sec-Websocket-Protocol"]} // as they came; none is chosen
	c, err := up.Upgrade(w, r, header)
	if err != nil {
		return // Upgrade has answered
	}
	defer c.Close()
	done := make(chan struct{})
	defer close(done)
	go s.goAway(c, done)
	hello := s.cfg.Identity.Line(stringAddr(r.RemoteAddr))
	if c.WriteMessage(websocket.TextMessage, []byte(hello)) != nil {
		return
	}
	for {
		kind, b, err := c.ReadMessage()
		if err != nil || c.WriteMessage(kind, b) != nil {
			return
		}
	}
}

// goAway tells the client when the server stops; the client's close frame then ends the reading.
func (s *Server) goAway(c *websocket.Conn, done <-chan struct{}) {
	select {
	case <-done:
	case <-s.stopping:
		message := websocket.FormatCloseMessage(websocket.CloseGoingAway, "stopping")
		_ = c.WriteControl(websocket.CloseMessage, message, time.Now().Add(time.Second)) // the client is gone already
		_ = c.SetReadDeadline(time.Now().Add(time.Second))
	}
}

// stringAddr is an address that http.Request has as a string.
type stringAddr string

func (stringAddr) Network() string  { return "tcp" }
func (a stringAddr) String() string { return string(a) }
