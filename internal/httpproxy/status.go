package httpproxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"syscall"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ReasonBadGateway is the reason of a Status of code 502, for which Kubernetes has none.
const ReasonBadGateway metav1.StatusReason = "BadGateway"

// retryAfter is when a client that was turned away may come again, in seconds.
const retryAfter = 1

var (
	errDraining     = errors.New("the proxy is shutting down; send the request to the one that takes its place")
	errClosed       = errors.New("the request has ended")
	errBodyTooLarge = errors.New("the body of the request is too large")
	errBodySlow     = errors.New("the body of the request did not arrive in time")
	errBodyBroken   = errors.New("the body of the request cannot be read")
)

// Status returns an error of the form that Kubernetes' clients read. The reason may be empty.
func Status(code int, reason metav1.StatusReason, message string) *apierrors.StatusError {
	return &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: int32(code), Reason: reason, Message: message,
	}}
}

// Fail answers a request with an error, as a metav1.Status in JSON. An error that is a Status (apierrors.APIStatus) goes as
// it is; bodies that are too large are 413, those that do not arrive 408, timeouts 504, a proxy that takes no more 503 with
// Retry-After, and all else 502. A client that is gone gets nothing: Fail panics with http.ErrAbortHandler, since net/http
// would answer 200 otherwise. Nothing of the answer may have been written before.
func Fail(w http.ResponseWriter, r *http.Request, err error) { fail(w, r, err, answerStatus) }

func fail(w http.ResponseWriter, r *http.Request, err error, write func(http.ResponseWriter, *http.Request, metav1.Status)) {
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler)
	}
	LeaveBody(w, r)
	write(w, r, statusOf(err))
}

func answerStatus(w http.ResponseWriter, r *http.Request, s metav1.Status) {
	body, err := json.Marshal(s)
	if err != nil {
		panic(err) // a Status has nothing that JSON cannot say
	}
	h := w.Header()
	h.Set("Content-Type", "application/json")
	h.Set("Content-Length", strconv.Itoa(len(body)))
	h.Set("Cache-Control", "no-store")
	h.Set("X-Content-Type-Options", "nosniff")
	if s.Details != nil && s.Details.RetryAfterSeconds > 0 {
		h.Set("Retry-After", strconv.Itoa(int(s.Details.RetryAfterSeconds)))
	}
	w.WriteHeader(int(s.Code))
	if r.Method != http.MethodHead {
		_, _ = w.Write(body) // a client that is gone needs no answer
	}
}

// statusOf returns an error as a Status.
func statusOf(err error) metav1.Status {
	var s metav1.Status
	var known apierrors.APIStatus
	if errors.As(err, &known) {
		s = known.Status()
	} else {
		code, reason := classify(err)
		s = Status(code, reason, err.Error()).ErrStatus
	}
	if s.Code < 400 || s.Code > 599 {
		s.Code = http.StatusInternalServerError // an error cannot be answered otherwise
	}
	if s.Code == http.StatusServiceUnavailable && s.Details == nil {
		s.Details = &metav1.StatusDetails{RetryAfterSeconds: retryAfter}
	}
	s.TypeMeta = metav1.TypeMeta{Kind: "Status", APIVersion: "v1"}
	return s
}

func classify(err error) (int, metav1.StatusReason) {
	var tooLarge *http.MaxBytesError
	switch {
	case errors.Is(err, errDraining):
		return http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable
	case errors.Is(err, errBodyTooLarge), errors.As(err, &tooLarge):
		return http.StatusRequestEntityTooLarge, metav1.StatusReasonRequestEntityTooLarge
	case errors.Is(err, errBodyBroken):
		return http.StatusBadRequest, metav1.StatusReasonBadRequest
	case errors.Is(err, errBodySlow):
		return http.StatusRequestTimeout, metav1.StatusReasonTimeout
	case timedOut(err):
		return http.StatusGatewayTimeout, metav1.StatusReasonTimeout
	}
	return http.StatusBadGateway, ReasonBadGateway
}

func timedOut(err error) bool {
	var n net.Error
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &n) && n.Timeout()
}

// failure is a target that did not answer.
type failure struct {
	name      string // of the target
	connected bool
	err       error
}

// Error says what was being done, what is wrong, and what to do.
func (f *failure) Error() string {
	what, hint := explain(f.err)
	doing := "cannot reach"
	if f.connected {
		doing = "no answer from"
	}
	return fmt.Sprintf("%s %s: %s%s", doing, f.name, what, hint)
}

// Unanswered returns the error of a request of our own that a target did not answer, in the words that clients get for
// theirs. name is as in Target.
func Unanswered(name string, err error) error { return &failure{name: name, err: err} }

// Unwrap returns the cause.
func (f *failure) Unwrap() error { return f.err }

// explain returns what went wrong, without the layers that it came through, and what to do about it.
func explain(err error) (what, hint string) {
	var dns *net.DNSError
	var plain tls.RecordHeaderError
	var unknown x509.UnknownAuthorityError
	var wrongName x509.HostnameError
	var invalid x509.CertificateInvalidError
	var alert tls.AlertError
	switch {
	case errors.As(err, &dns) && !dns.IsTimeout:
		return dns.Err + " " + dns.Name, " (is the name right, and does this machine's DNS know it?)"
	case timedOut(err):
		return "it did not answer in time", " (is the address right, and does a firewall or a missing VPN keep it away?)"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection refused", " (is it running, and is the address right?)"
	case errors.As(err, &plain):
		return "it does not speak TLS", " (should the URL begin with http:// ?)"
	case errors.As(err, &unknown), errors.As(err, &wrongName), errors.As(err, &invalid):
		return innermost(err).Error(), " (do the configured certificate authority and server name belong to it?)"
	case errors.As(err, &alert):
		return "it ended the TLS handshake: " + alert.Error(), " (does it accept the configured client certificate?)"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "it closed the connection", ""
	case errors.Is(err, syscall.ECONNRESET):
		return "it reset the connection", ""
	}
	return err.Error(), ""
}

// innermost returns the last error of a chain.
func innermost(err error) error {
	for {
		next := errors.Unwrap(err)
		if next == nil {
			return err
		}
		err = next
	}
}
