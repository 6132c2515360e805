package targets

import (
	"crypto/sha1"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// PagePath asks for an HTML page of so many MiB, full of links.
func PagePath(mib int) string { return fmt.Sprintf("/page?mib=%d", mib) }

// StreamPath asks for an HTML page in so many parts, of which each but the first comes so much later than the one before.
func StreamPath(parts int, gap time.Duration) string {
	return fmt.Sprintf("/stream?parts=%d&gap=%s", parts, gap)
}

// FlowPath asks for bytes at a rate, for so long.
func FlowPath(bytesPerSecond int64, duration time.Duration) string {
	return fmt.Sprintf("/flow?rate=%d&time=%s", bytesPerSecond, duration)
}

// SocketPath asks for a WebSocket. What comes on it goes back as it is, frames or not.
const SocketPath = "/socket"

func (s *Server) pages() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET "+CountsPath, s.counts)
	mux.HandleFunc("GET /page", page)
	mux.HandleFunc("GET /stream", stream)
	mux.HandleFunc("GET /flow", flow)
	mux.HandleFunc("GET "+SocketPath, socket)
	return mux
}

// item is a line of a page: what a proxy moves below its own path, and what it leaves.
const item = `<li class="item"><a href="/articles/some-article">An article</a> with an <img src="/images/picture.png" alt="picture">` +
	` and <a href="https://example.com/else">a link that leads elsewhere</a>, and text that goes on until the line is long enough.</li>` + "\n"

// pageHead begins every page.
const pageHead = "<!DOCTYPE html>\n<html><head><title>A page</title></head><body><ul>\n"

func page(w http.ResponseWriter, r *http.Request) {
	n := number(r.URL.Query(), "mib") << 20
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	if _, err := io.WriteString(w, pageHead); err != nil {
		return // the client is gone
	}
	piece := []byte(strings.Repeat(item, 64<<10/len(item)))
	for ; n > 0; n -= int64(len(piece)) {
		if _, err := w.Write(piece); err != nil {
			return
		}
	}
}

func stream(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	gap, _ := time.ParseDuration(q.Get("gap")) // none without one
	w.Header().Set("Content-Type", "text/html; charset=utf-8")
	for i := range number(q, "parts") {
		if i > 0 {
			time.Sleep(gap)
		}
		if _, err := fmt.Fprintf(w, "%s<p>part %d</p>\n%s", pageHead, i, item); err != nil {
			return
		}
		_ = http.NewResponseController(w).Flush() // what cannot be written next is what ends it
	}
}

// tick is how often a flow goes on: finely enough for buffers to be what they are under a steady flow.
const tick = 5 * time.Millisecond

func flow(w http.ResponseWriter, r *http.Request) {
	q := r.URL.Query()
	duration, _ := time.ParseDuration(q.Get("time")) // nothing without one
	rate, piece := float64(number(q, "rate")), make([]byte, 64<<10)
	end := int64(rate * duration.Seconds())
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(end, 10))
	for began, sent := time.Now(), int64(0); sent < end; {
		due := min(end, int64(rate*time.Since(began).Seconds()))
		if sent == due {
			_ = http.NewResponseController(w).Flush() // what cannot be written next is what ends it
			time.Sleep(tick)
			continue
		}
		n, err := w.Write(piece[:min(int64(len(piece)), due-sent)])
		if err != nil {
			return
		}
		sent += int64(n)
	}
}

// socketKey is what RFC 6455, section 1.3, has servers add.
const socketKey = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"

func socket(w http.ResponseWriter, r *http.Request) {
	c, in, err := http.NewResponseController(w).Hijack()
	if err != nil {
		return
	}
	defer c.Close()
	sum := sha1.Sum([]byte(r.Header.Get("Sec-Websocket-Key") + socketKey))
	if _, err := fmt.Fprintf(c, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		base64.StdEncoding.EncodeToString(sum[:])); err != nil {
		return
	}
	_, _ = io.Copy(c, in) // until the client is gone
}

func number(q url.Values, key string) int64 {
	n, _ := strconv.ParseInt(q.Get(key), 10, 64) // 0 of what is none
	return n
}
