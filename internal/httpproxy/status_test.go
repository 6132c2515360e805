package httpproxy_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"

	"varco.dev/internal/httpproxy"
)

// failing is a RoundTripper that does.
type failing struct{ err error }

func (f failing) RoundTrip(*http.Request) (*http.Response, error) { return nil, f.err }

// TestFail wants each error to be told as Kubernetes tells errors.
func TestFail(t *testing.T) {
	for _, c := range []struct {
		name string
		err  error
		want metav1.Status
	}{
		{"a Status", apierrors.NewForbidden(schema.GroupResource{Resource: "pods"}, "x", errors.New("no")), metav1.Status{
			Code: 403, Reason: metav1.StatusReasonForbidden, Message: `pods "x" is forbidden: no`,
			Details: &metav1.StatusDetails{Name: "x", Kind: "pods"}}},
		{"a wrapped Status", fmt.Errorf("x: %w", httpproxy.Status(418, "Tea", "no")), metav1.Status{Code: 418, Reason: "Tea", Message: "no"}},
		{"a Status without an error's code", httpproxy.Status(200, "", "no"), metav1.Status{Code: 500, Message: "no"}},
		{"full", httpproxy.Status(503, metav1.StatusReasonServiceUnavailable, "full"), metav1.Status{
			Code: 503, Reason: metav1.StatusReasonServiceUnavailable, Message: "full", Details: &metav1.StatusDetails{RetryAfterSeconds: 1}}},
		{"too large", &http.MaxBytesError{Limit: 5}, metav1.Status{
			Code: 413, Reason: metav1.StatusReasonRequestEntityTooLarge, Message: "http: request body too large"}},
		{"timeout", context.DeadlineExceeded, metav1.Status{
			Code: 504, Reason: metav1.StatusReasonTimeout, Message: "context deadline exceeded"}},
		{"else", errors.New("what"), metav1.Status{Code: 502, Reason: httpproxy.ReasonBadGateway, Message: "what"}},
	} {
		for _, method := range []string{"GET", "HEAD"} {
			w := httptest.NewRecorder()
			httpproxy.Fail(w, httptest.NewRequest(method, "/", nil), c.err)
			c.want.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
			c.want.Status = metav1.StatusFailure
			h := w.Header()
			if w.Code != int(c.want.Code) || h.Get("Content-Type") != "application/json" || (h.Get("Retry-After") != "") != (w.Code == 503) {
				t.Errorf("%s: got %d and %v", c.name, w.Code, h)
			}
			if method == "HEAD" {
				if w.Body.Len() > 0 || h.Get("Content-Length") == "" {
					t.Errorf("%s: HEAD got %q and %v", c.name, w.Body, h)
				}
				continue
			}
			var got metav1.Status
			if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil || h.Get("Content-Length") != strconv.Itoa(w.Body.Len()) {
				t.Errorf("%s: %v and %v", c.name, err, h)
			}
			if diff := cmp.Diff(c.want, got); diff != "" {
				t.Errorf("%s: -want +got:\n%s", c.name, diff)
			}
		}
	}
}

// TestFailOfNobody wants a client that is gone to get nothing, not even net/http's 200.
func TestFailOfNobody(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	w := httptest.NewRecorder()
	defer func() {
		if e := recover(); e != http.ErrAbortHandler || w.Body.Len() > 0 {
			t.Errorf("got %v and %q", e, w.Body)
		}
	}()
	httpproxy.Fail(w, httptest.NewRequest("GET", "/", nil).WithContext(ctx), errors.New("what"))
}

// TestUnreachableTargets wants errors that people can do something about.
func TestUnreachableTargets(t *testing.T) {
	for _, c := range []struct {
		err        error
		code       int
		what, hint string
	}{
		{&net.OpError{Op: "dial", Net: "tcp", Err: os.NewSyscallError("connect", syscall.ECONNREFUSED)}, 502, "connection refused", "is it running"},
		{&net.OpError{Op: "dial", Err: &net.DNSError{Err: "no such host", Name: "api.example", IsNotFound: true}}, 502, "no such host api.example", "DNS"},
		{&net.OpError{Op: "dial", Err: os.NewSyscallError("connect", syscall.ETIMEDOUT)}, 504, "it did not answer in time", "VPN"},
		{&net.DNSError{Err: "i/o timeout", Name: "api.example", IsTimeout: true}, 504, "it did not answer in time", ""},
		{os.ErrDeadlineExceeded, 504, "it did not answer in time", ""},
		{tls.RecordHeaderError{Msg: "first record does not look like a TLS handshake"}, 502, "it does not speak TLS", "http://"},
		{tls.AlertError(42), 502, "it ended the TLS handshake: tls: bad certificate", "client certificate"},
		{io.EOF, 502, "it closed the connection", ""},
		{&net.OpError{Op: "read", Err: os.NewSyscallError("read", syscall.ECONNRESET)}, 502, "it reset the connection", ""},
		{errors.New("what"), 502, "what", ""},
	} {
		w := httptest.NewRecorder()
		p := httpproxy.New(httpproxy.Config{Log: slog.New(slog.DiscardHandler)})
		p.Serve(w, httptest.NewRequest("GET", "/", nil), httpproxy.Target{
			Name: "the API server", Scheme: "https", Host: "10.0.0.1:6443", RoundTripper: failing{c.err}})
		var got metav1.Status
		if err := json.Unmarshal(w.Body.Bytes(), &got); err != nil {
			t.Fatal(err)
		}
		if w.Code != c.code || !strings.HasPrefix(got.Message, "cannot reach the API server: "+c.what) || !strings.Contains(got.Message, c.hint) {
			t.Errorf("%v: got %d %q, want %d %q and %q", c.err, w.Code, got.Message, c.code, c.what, c.hint)
		}
	}
}

// TestWrongCertificate has a target that the client does not trust, and one that closes without an answer.
func TestWrongCertificate(t *testing.T) {
	w := newWorld(t, func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) })
	get := "POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\nContent-Length: 1\r\n\r\na"
	if got := w.ask(t, get); !strings.HasPrefix(got, "HTTP/1.1 502 ") || !strings.Contains(got, `"no answer from `+w.to.Host+`: it closed the connection"`) {
		t.Errorf("got %q", got)
	}
	tr := &http.Transport{}
	defer tr.CloseIdleConnections()
	w.to.RoundTripper = tr
	if got := w.ask(t, get); !strings.HasPrefix(got, "HTTP/1.1 502 ") || !strings.Contains(got, "x509: certificate signed by unknown authority (do the configured") {
		t.Errorf("got %q", got)
	}
}

// TestTargetFailsDuringUpload has a target that breaks off while its client still sends.
func TestTargetFailsDuringUpload(t *testing.T) {
	gone := make(chan struct{})
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
		defer close(gone)
		io.ReadFull(r.Body, make([]byte, 5))
		conn, _, _ := w.(http.Hijacker).Hijack()
		conn.Close()
	})
	conn, r := w.dial(t)
	send(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n")
	<-gone
	go func() {
		for range 20 {
			io.WriteString(conn, "1\r\nx\r\n")
			time.Sleep(10 * time.Millisecond) // a client that takes its time
		}
	}()
	if resp := answerTo(t, r, "POST"); resp.StatusCode != 502 || !resp.Close {
		t.Errorf("got %s, and close is %v", resp.Status, resp.Close)
	}
}

// TestTargetFailsWhileTheClientIsSilent has a target that breaks off while the proxy waits for more of the body.
func TestTargetFailsWhileTheClientIsSilent(t *testing.T) {
	w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
		io.ReadFull(r.Body, make([]byte, 5))
		conn, _, _ := w.(http.Hijacker).Hijack()
		conn.Close()
	})
	conn, r := w.dial(t)
	send(t, conn, "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n12345\r\n")
	if resp := answerTo(t, r, "POST"); resp.StatusCode != 502 || !resp.Close {
		t.Errorf("got %s, and close is %v", resp.Status, resp.Close)
	}
}

// TestOwnWords wants a proxy that has its own words and its own form for errors to use them, and only them.
func TestOwnWords(t *testing.T) {
	words := func(w http.ResponseWriter, _ *http.Request, s metav1.Status) {
		w.WriteHeader(int(s.Code))
		fmt.Fprintf(w, "%s!", s.Message)
	}
	proxy := httpproxy.New(httpproxy.Config{Log: slog.New(slog.DiscardHandler), WriteStatus: words})
	cause := errors.New("gone fishing")
	target := httpproxy.Target{Scheme: "http", Host: "target", RoundTripper: failing{cause}, MaxBody: 3}
	for name, c := range map[string]struct {
		body       string
		unanswered func(error) error
		want       string
	}{
		"not reached":  {"", nil, "502 cannot reach target: gone fishing!"},
		"own words":    {"", func(err error) error { return httpproxy.Status(599, "", "target: "+err.Error()) }, "599 target: gone fishing!"},
		"before a try": {"four", func(error) error { t.Error("a body that is too large is no fault of the target"); return nil }, "413 the body of the request is too large: at most 3 bytes are allowed!"},
	} {
		w := httptest.NewRecorder()
		target.Unanswered = c.unanswered
		proxy.Serve(w, httptest.NewRequest("POST", "/", strings.NewReader(c.body)), target)
		if got := fmt.Sprintf("%d %s", w.Code, w.Body); got != c.want {
			t.Errorf("%s: got %q, want %q", name, got, c.want)
		}
	}
}
