package echo

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Reply is the answer of every path that has no other meaning: who answered, and the request as it came.
type Reply struct {
	Pod     string      `json:"pod"`
	Node    string      `json:"node"`
	Client  string      `json:"client"` // address:port
	Method  string      `json:"method"`
	Host    string      `json:"host"`
	Path    string      `json:"path"` // as on the wire, query included
	Proto   string      `json:"proto"`
	Headers http.Header `json:"headers"`
}

// Upload is the answer of /upload.
type Upload struct {
	Pod    string `json:"pod"`
	Bytes  int64  `json:"bytes"`
	SHA256 string `json:"sha256"` // hexadecimal
}

// maxBody bounds what /bytes and /slow send.
const maxBody = 16 << 30

// handler routes by itself: http.ServeMux would redirect a path such as /a//b, which must show as it came.
func (s *Server) handler() http.Handler {
	paths := map[string]http.HandlerFunc{
		"/healthz":  func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok\n") },
		"/readyz":   s.readyz,
		"/ws":       s.webSocket,
		"/events":   s.events,
		"/slow":     s.slow,
		"/bytes":    s.bytes,
		"/upload":   s.upload,
		"/redirect": redirect,
		"/answer":   s.answer,
		"/page":     s.page,
	}
	grpc := newGRPC()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("X-Pod", s.cfg.Identity.Pod)
		w.Header().Set("X-Node", s.cfg.Identity.Node)
		w.Header().Set("X-Client", r.RemoteAddr)
		if s.draining.Load() {
			// Closing idle connections would race with the request that a client is just sending on one. Asked to, the
			// client leaves by itself; HTTP/2 makes it a GOAWAY.
			w.Header().Set("Connection", "close")
		}
		h, ok := paths[r.URL.Path]
		switch {
		case ok:
			h(w, r)
		case isGRPC(r):
			grpc.ServeHTTP(w, r)
		case strings.HasPrefix(r.URL.Path, "/status/"):
			status(w, r)
		default:
			s.identity(w, r)
		}
	})
}

func (s *Server) identity(w http.ResponseWriter, r *http.Request) {
	writeJSON(w, Reply{
		Pod: s.cfg.Identity.Pod, Node: s.cfg.Identity.Node, Client: r.RemoteAddr,
		Method: r.Method, Host: r.Host, Path: r.RequestURI, Proto: r.Proto, Headers: r.Header,
	})
}

func writeJSON(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	_ = e.Encode(v) // the client went away
}

// readyz stays ready while the server stops: for that time it still serves, and an endpoint that is terminating but
// serving is the last resort of a Service without others.
func (s *Server) readyz(w http.ResponseWriter, r *http.Request) {
	if r.Method == http.MethodPut || r.Method == http.MethodPost {
		ready, err := strconv.ParseBool(r.FormValue("ready"))
		if err != nil {
			http.Error(w, "ready must be true or false", http.StatusBadRequest)
			return
		}
		s.unready.Store(!ready)
		fmt.Fprintf(w, "ready=%t\n", ready)
		return
	}
	if s.unready.Load() {
		http.Error(w, "not ready", http.StatusServiceUnavailable)
		return
	}
	io.WriteString(w, "ok\n")
}

func (s *Server) bytes(w http.ResponseWriter, r *http.Request) {
	n, ok := queryOf(w, r).number("n", 1024)
	if !ok {
		return
	}
	w.Header().Set("Content-Type", "application/octet-stream")
	w.Header().Set("Content-Length", strconv.FormatInt(n, 10))
	_, _ = io.CopyN(w, pattern{}, n) // the client went away
}

// slow sends the body in ten parts, spread over the delay; the headers come at once.
func (s *Server) slow(w http.ResponseWriter, r *http.Request) {
	const parts = 10
	n, ok := queryOf(w, r).number("bytes", parts)
	if !ok {
		return
	}
	delay, ok := queryOf(w, r).duration("delay", time.Second)
	if !ok {
		return
	}
	out := http.NewResponseController(w)
	tick := time.NewTicker(max(delay/parts, 1))
	defer tick.Stop()
	w.WriteHeader(http.StatusOK)
	for i := range int64(parts) {
		if out.Flush() != nil {
			return
		}
		select {
		case <-tick.C:
		case <-r.Context().Done():
			return
		}
		if _, err := io.CopyN(w, pattern{}, n*(i+1)/parts-n*i/parts); err != nil {
			return
		}
	}
}

func (s *Server) upload(w http.ResponseWriter, r *http.Request) {
	if r.Method != http.MethodPost && r.Method != http.MethodPut {
		http.Error(w, "upload with POST or PUT", http.StatusMethodNotAllowed)
		return
	}
	hash := sha256.New()
	n, err := io.Copy(hash, r.Body)
	if err != nil {
		http.Error(w, fmt.Sprintf("read body after %d bytes: %v", n, err), http.StatusBadRequest)
		return
	}
	writeJSON(w, Upload{Pod: s.cfg.Identity.Pod, Bytes: n, SHA256: hex.EncodeToString(hash.Sum(nil))})
}

func status(w http.ResponseWriter, r *http.Request) {
	code, err := strconv.Atoi(strings.TrimPrefix(r.URL.Path, "/status/"))
	if err != nil || code < 200 || code > 999 {
		http.Error(w, "the status must be a number from 200 to 999", http.StatusBadRequest)
		return
	}
	w.WriteHeader(code)
}

func redirect(w http.ResponseWriter, r *http.Request) {
	to := r.URL.Query().Get("to")
	if to == "" {
		http.Error(w, "say where: /redirect?to=URL", http.StatusBadRequest)
		return
	}
	w.Header().Set("Location", to) // http.Redirect would rewrite it
	w.WriteHeader(http.StatusFound)
}

// query reads the parameters of a request. A bad one is answered at once, and ok is false.
type query struct {
	url.Values
	w http.ResponseWriter
}

func queryOf(w http.ResponseWriter, r *http.Request) query { return query{r.URL.Query(), w} }

// number reads a size or a count.
func (q query) number(key string, fallback int64) (n int64, ok bool) {
	if !q.Has(key) {
		return fallback, true
	}
	n, err := strconv.ParseInt(q.Get(key), 10, 64)
	if err != nil || n < 0 || n > maxBody {
		http.Error(q.w, fmt.Sprintf("%s must be a number from 0 to %d", key, int64(maxBody)), http.StatusBadRequest)
		return 0, false
	}
	return n, true
}

// duration reads a duration such as 1.5s.
func (q query) duration(key string, fallback time.Duration) (d time.Duration, ok bool) {
	if !q.Has(key) {
		return fallback, true
	}
	d, err := time.ParseDuration(q.Get(key))
	if err != nil || d < 0 {
		http.Error(q.w, key+" must be a duration such as 1.5s", http.StatusBadRequest)
		return 0, false
	}
	return d, true
}

// pattern is an endless text of lines.
type pattern struct{}

func (pattern) Read(b []byte) (int, error) {
	for i := range b {
		b[i] = 'x'
		if i%64 == 63 {
			b[i] = '\n'
		}
	}
	return len(b), nil
}
