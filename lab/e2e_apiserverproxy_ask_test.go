package main_test

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"varco.dev/lab/internal/echo"
)

// request is one that is sent to several ways; path is without the base, and as on the wire.
type request struct {
	method string // GET if it is empty
	path   string
	header map[string]string
	body   string
}

// hostHeader is the host of all requests, so that no answer differs by the name of who was asked.
const hostHeader = "kubernetes.test"

// answer is what came of a request.
type answer struct {
	status int
	header http.Header
	body   []byte
	err    error // the answer's body broke off, or there is none
}

func (a answer) String() string { return fmt.Sprintf("%d %v %q %v", a.status, a.header, a.body, a.err) }

// echoed is the request as the target saw it.
func (a answer) echoed() (r echo.Reply, ok bool) {
	return r, json.Unmarshal(a.body, &r) == nil && r.Proto != ""
}

// httpClient asks from the outside client, as the administrator unless the request has a token; it follows no redirect and
// unpacks nothing.
func (p *apiProxies) httpClient(t *testing.T) *http.Client {
	t.Helper()
	tr := &http.Transport{
		DialContext: p.client.DialContext, TLSClientConfig: p.tls(t), ForceAttemptHTTP2: true, DisableCompression: true,
	}
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{
		Transport: tr, Timeout: patience,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

func (r request) build(t *testing.T, w way) *http.Request {
	t.Helper()
	method := r.method
	if method == "" {
		method = http.MethodGet
	}
	var body io.Reader
	if r.body != "" {
		body = strings.NewReader(r.body)
	}
	req, err := http.NewRequestWithContext(t.Context(), method, w.url+w.base+"/"+r.path, body)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = hostHeader
	for name, value := range r.header {
		req.Header.Set(name, value)
	}
	return req
}

// ask sends a request and reads the whole answer.
func (p *apiProxies) ask(t *testing.T, w way, r request) answer {
	t.Helper()
	return send(p.httpClient(t), r.build(t, w))
}

func send(c *http.Client, req *http.Request) answer {
	resp, err := c.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return answer{resp.StatusCode, resp.Header, text, err}
}

// changing are headers that differ between two answers of the same server: who answered when.
func changing() []string {
	return []string{"Date", "Audit-Id", "X-Pod", "X-Node", "X-Client"}
}

// added are headers that varco adds, and why.
func added() map[string]string {
	return map[string]string{
		"X-Varco-Backend":    "tells the endpoint that has answered",
		"X-Forwarded-Prefix": "tells the target below which path it is seen",
		"X-Forwarded-Host":   "the original means to send it, but takes it from where a server's requests have none",
		"X-Forwarded-Proto":  "as X-Forwarded-Host",
		"Accept-Encoding":    "the original asks for gzip where the client asks for nothing, and unpacks the answer",
	}
}

// plain is an answer without what differs anyway: what changes with each request, what varco adds, and how the aggregated
// base is called.
func (a answer) plain() answer {
	p := answer{status: a.status, header: a.header.Clone(), body: bytes.ReplaceAll(a.body, []byte(aggregatedBase), []byte(coreBase)), err: a.err}
	drop(p.header)
	for name, values := range p.header {
		for i, v := range values {
			p.header[name][i] = strings.ReplaceAll(v, aggregatedBase, coreBase)
		}
	}
	if seen, ok := a.echoed(); ok {
		seen.Pod, seen.Node, seen.Client = "", "", ""
		seen.Proto = "" // the original speaks HTTP/2 to targets that offer it by TLS
		drop(seen.Headers)
		text, err := json.MarshalIndent(seen, "", " ")
		if err == nil {
			p.body = bytes.ReplaceAll(text, []byte(aggregatedBase), []byte(coreBase))
		}
		p.header.Del("Content-Length")
	}
	if len(a.body) == 0 && p.header.Get("Content-Type") == "application/json" {
		p.header.Del("Content-Length") // that of the target's answer to a HEAD, which is longer for each header that it saw
	}
	return p
}

func drop(h http.Header) {
	for _, name := range changing() {
		h.Del(name)
	}
	for name := range added() {
		h.Del(name)
	}
}

// layered is an answer of the aggregated way without what the aggregation layer makes of each: two servers add the header of
// answers that are not to be kept, and the target is told the name by which the layer asks.
func (a answer) layered() answer {
	kept := a.header["Cache-Control"]
	if len(kept) > 1 && kept[0] == kept[1] {
		a.header = a.header.Clone()
		a.header["Cache-Control"] = kept[1:]
	}
	if seen, ok := a.echoed(); ok {
		seen.Host = hostHeader
		if text, err := json.Marshal(seen); err == nil {
			a.body = text
		}
	}
	return a
}

// difference tells how two answers differ, "" if they do not.
func difference(original, ours answer) string {
	a, b := original.plain(), ours.plain()
	var lines []string
	if a.status != b.status {
		lines = append(lines, fmt.Sprintf("status %d, original %d", b.status, a.status))
	}
	if (a.err == nil) != (b.err == nil) {
		lines = append(lines, fmt.Sprintf("error %v, original %v", b.err, a.err))
	}
	names := map[string]bool{}
	for _, h := range []http.Header{a.header, b.header} {
		for name := range h {
			names[name] = true
		}
	}
	for name := range names {
		if !slices.Equal(a.header[name], b.header[name]) {
			lines = append(lines, fmt.Sprintf("%s: %q, original %q", name, b.header[name], a.header[name]))
		}
	}
	slices.Sort(lines)
	if !bytes.Equal(a.body, b.body) {
		lines = append(lines, "body (-original +ours):\n"+cmp.Diff(strings.Split(string(a.body), "\n"), strings.Split(string(b.body), "\n")))
	}
	return strings.Join(lines, "\n")
}
