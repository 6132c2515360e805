package server_test

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"
)

// raw sends bytes over a new connection of its own and returns all answers until the server closes it, or is silent after as
// many as are expected.
func raw(t *testing.T, s *stage, content string, expected int) (codes []int) {
	t.Helper()
	conn, err := tls.Dial("tcp", strings.TrimPrefix(s.url, "https://"), &tls.Config{RootCAs: s.serving.pool(), NextProtos: []string{"http/1.1"}})
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, content); err != nil {
		t.Fatal(err)
	}
	r := bufio.NewReader(conn)
	for {
		patience := 10 * time.Second
		if len(codes) >= expected {
			patience = 100 * time.Millisecond
		}
		_ = conn.SetReadDeadline(time.Now().Add(patience))
		resp, err := http.ReadResponse(r, nil)
		if err != nil {
			return codes
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		codes = append(codes, resp.StatusCode)
	}
}

// TestSmuggling sends requests whose end two readers may see at different places. What is refused must not reach the API
// server, and what is taken must reach it as one request that nobody else's can follow.
func TestSmuggling(t *testing.T) {
	s := newStage(t, nil)
	const hidden = "GET /hidden HTTP/1.1\r\nHost: a\r\nX-Remote-User: mallory\r\n\r\n"
	chunked := "0\r\n\r\n"
	for _, c := range []struct {
		name, request string
		codes         string   // of all answers
		paths         []string // that the API server may get; each as often as here
	}{
		{"CL.TE", fmt.Sprintf("POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: %d\r\nTransfer-Encoding: chunked\r\n\r\n%s%s", len(chunked+hidden), chunked, hidden), "[200 200]", []string{"/one", "/hidden"}}, // net/http goes by the chunks (RFC 9112, 6.3); what follows has a request's own rights
		{"TE.CL", "POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 4\r\n\r\n" + fmt.Sprintf("%x\r\n%s\r\n0\r\n\r\n", len(hidden), hidden), "[200]", []string{"/one"}},
		{"TE.TE", "POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n" + chunked + hidden, "[501]", nil},
		{"an unknown encoding", "POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n" + chunked, "[501]", nil},
		{"chunked is not the last", "POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n" + chunked, "[501]", nil},
		{"a space before the colon", "POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n" + chunked, "[400]", nil},
		{"two lengths", "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 60\r\n\r\n" + hidden, "[400]", nil},
		{"a list of lengths", "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 60\r\n\r\n" + hidden, "[400]", nil},
		{"a signed length", "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\nhello", "[400]", nil},
		{"a negative length", "POST /one HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n", "[400]", nil},
		{"a chunk of a signed size", "POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n+5\r\nhello\r\n0\r\n\r\n", "[400]", []string{"/one broken"}},
		{"a chunk that is longer than said", "POST /one HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nhello\r\n0\r\n\r\n", "[400]", []string{"/one broken"}},
		{"obs-fold", "GET /one HTTP/1.1\r\nHost: a\r\nX-A: b\r\n X-Remote-User: mallory\r\n\r\n", "[200]", []string{"/one"}},
		{"a fold as the first field", "GET /one HTTP/1.1\r\n X-Remote-User: mallory\r\nHost: a\r\n\r\n", "[400]", nil},
		{"bare line feeds", "GET /one HTTP/1.1\nHost: a\nX-Remote-User: mallory\n\n", "[200]", []string{"/one"}},
		{"a bare carriage return in a value", "GET /one HTTP/1.1\r\nHost: a\r\nX-A: b\rX-Remote-User: mallory\r\n\r\n", "[400]", nil},
		{"a zero byte in a value", "GET /one HTTP/1.1\r\nHost: a\r\nX-A: b\x00\r\n\r\n", "[400]", nil},
		{"a field without a name", "GET /one HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n", "[400]", nil},
		{"a name with a space", "GET /one HTTP/1.1\r\nHost: a\r\nX-Remote-User x: mallory\r\n\r\n", "[400]", nil},
		{"no host", "GET /one HTTP/1.1\r\n\r\n", "[400]", nil},
		{"two hosts", "GET /one HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "[400]", nil},
		{"a target with another host", "GET http://other.example/one HTTP/1.1\r\nHost: a\r\n\r\n", "[200]", []string{"/one"}},
		{"a target with a user", "GET https://u:p@other.example/one HTTP/1.1\r\nHost: a\r\n\r\n", "[200]", []string{"/one"}},
		{"an opaque target", "GET x:https://other.example/one HTTP/1.1\r\nHost: a\r\n\r\n", "", nil},
		{"a target of another server's proxy", "GET http://other.example" + podProxy + " HTTP/1.1\r\nHost: a\r\n\r\n", "[200]", nil},
		{"CONNECT", "CONNECT other.example:443 HTTP/1.1\r\nHost: other.example:443\r\n\r\n", "[501]", nil},
		{"an asterisk", "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n", "[200]", nil},
		{"two in a row", "GET /one HTTP/1.1\r\nHost: a\r\n\r\nGET /two HTTP/1.1\r\nHost: a\r\n\r\n", "[200 200]", []string{"/one", "/two"}},
		{"a body where none is meant", "GET /one HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhello", "[200]", []string{"/one"}},
		{"h2c", "GET /one HTTP/1.1\r\nHost: a\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n\r\n" + hidden, "[200 200]", []string{"/one", "/hidden"}},
		{"the preface of HTTP/2", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "[400]", nil},
		{"an asterisk for another method", "GET * HTTP/1.1\r\nHost: a\r\n\r\n", "[400]", nil},
		{"HTTP/0.9", "GET /one\r\n\r\n", "[400]", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			codes := raw(t, s, c.request, len(strings.Fields(c.codes)))
			if got := fmt.Sprint(codes); c.codes != "" && got != c.codes {
				t.Errorf("answers %s, want %s", got, c.codes)
			}
			waitFor(t, func() bool { return s.api.count() >= len(c.paths) }) // an answer may come before the API server has noticed
			all := s.api.take()
			var paths []string
			for _, got := range all {
				if got.Broken {
					got.Path += " broken"
				}
				paths = append(paths, got.Path)
				if who := identityOf(got.Header); len(who) > 0 || got.Peer != "" {
					t.Errorf("the API server got %+v", got)
				}
				if strings.Contains(got.Host, "other") {
					t.Errorf("the API server was called %q", got.Host)
				}
			}
			if fmt.Sprint(paths) != fmt.Sprint(c.paths) && c.codes != "" {
				t.Errorf("the API server got %v, want %v: %+v", paths, c.paths, all)
			}
		})
	}
}
