package httpproxy

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/http/httptrace"
	"net/textproto"
	"net/url"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/relay"
)

// exchange is one request and its answer.
type exchange struct {
	p         *Proxy
	w         http.ResponseWriter
	r         *http.Request
	t         Target
	upgrading bool // the client wants an upgrade
	long      bool // the answer ends when the proxy drains

	cancel context.CancelCauseFunc
	out    *http.Request
	url    url.URL       // of out
	body   *requestBody  // of out; nil: none
	conn   net.Conn      // to the target, once there is one
	teller *BufferedConn // tells when conn is closed; nil: nobody does
	trace  httptrace.ClientTrace

	mu       sync.Mutex // guards the fields below, and w as long as there is no answer
	answered bool       // the round trip has ended
	drained  bool       // the answer shall end now, in order
}

// begin lets a request in.
func (p *Proxy) begin(w http.ResponseWriter, r *http.Request, t Target) (*exchange, error) {
	x := &exchange{p: p, w: w, r: r, t: t, long: isLongRunning(r)}
	x.upgrading = WantsUpgrade(r)
	if r.Method == http.MethodConnect {
		return nil, Status(http.StatusNotImplemented, metav1.StatusReasonMethodNotAllowed, "tunnels to other hosts (CONNECT) are not offered here")
	}
	if t.MaxBody > 0 && r.ContentLength > t.MaxBody {
		return nil, tooLarge(t.MaxBody)
	}
	if err := p.enter(x); err != nil {
		return nil, err
	}
	if x.long {
		markLongRunning(w)
	}
	return x, nil
}

// enter counts an exchange in.
func (p *Proxy) enter(x *exchange) error {
	ctx, cancel := context.WithCancelCause(x.r.Context())
	x.cancel = cancel
	x.trace.GotConn = x.gotConn
	x.trace.Got1xxResponse = x.informational
	x.out = x.r.WithContext(httptrace.WithClientTrace(ctx, &x.trace))
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case p.draining:
		cancel(nil)
		return errDraining
	case x.upgrading && p.upgrades >= p.maxUpgrades:
		cancel(nil)
		return Status(http.StatusServiceUnavailable, metav1.StatusReasonServiceUnavailable, fmt.Sprintf(
			"%d upgraded connections (exec, attach, port-forward, WebSocket) are open, which is as many as may be; end some of them", p.upgrades))
	case x.upgrading:
		p.upgrades++
	}
	p.open[x] = struct{}{}
	return nil
}

// end counts an exchange out. Nothing of it runs any more.
func (x *exchange) end() {
	x.cancel(errClosed)
	x.body.finish()
	x.mu.Lock()
	x.forgotten()
	x.mu.Unlock()
	p := x.p
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.open, x)
	if x.upgrading {
		p.upgrades--
	}
	if p.idle != nil && len(p.open) == 0 {
		close(p.idle)
		p.idle = nil
	}
}

// gotConn learns the connection that a request goes out on.
func (x *exchange) gotConn(info httptrace.GotConnInfo) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.conn = info.Conn
	x.forgotten() // by the one before, which others may still use
	if c := bufferedBelow(x.conn); c != nil && x.body != nil {
		x.teller = c
		c.remember(x)
	}
}

// interrupt ends a read of the client's body that nobody waits for but a transport: it returns from a request that has failed
// when what it reads does, and a silent client could keep it for as long as it likes.
func (x *exchange) interrupt() {
	x.mu.Lock()
	body, answered := x.body, x.answered
	x.mu.Unlock()
	if !answered {
		body.interrupt()
	}
}

// forgotten has the connection forget the exchange. The caller holds mu.
func (x *exchange) forgotten() {
	if x.teller != nil {
		x.teller.forget(x)
		x.teller = nil
	}
}

// informational passes an answer of code 1xx on. 100 (continue) is not: net/http sends one when the body is read, and it is
// read when the target has asked for it.
func (x *exchange) informational(code int, header textproto.MIMEHeader) error {
	x.mu.Lock()
	defer x.mu.Unlock()
	if x.answered || code == http.StatusContinue || !x.r.ProtoAtLeast(1, 1) {
		return nil
	}
	h := x.w.Header()
	ours := maps.Clone(h) // for the answer that is still to come
	clear(h)
	copyHeader(h, http.Header(header))
	x.w.WriteHeader(code)
	clear(h)
	maps.Copy(h, ours)
	return nil
}

// roundTrip sends the request and returns the answer's header. Afterwards the answer to the client belongs to the caller
// alone.
func (x *exchange) roundTrip(rt http.RoundTripper) (*http.Response, error) {
	x.outgoing()
	resp, err := rt.RoundTrip(x.out)
	x.mu.Lock()
	x.answered = true
	x.mu.Unlock()
	if err != nil {
		return nil, x.explain(err)
	}
	x.body.untime()
	if resp.StatusCode < 200 && resp.StatusCode != http.StatusSwitchingProtocols {
		resp.Body.Close()
		return nil, Status(http.StatusBadGateway, ReasonBadGateway, fmt.Sprintf("the target has answered with code %d, which is none", resp.StatusCode))
	}
	if err := x.editResponse(resp); err != nil {
		return nil, err
	}
	return resp, nil
}

// editResponse lets the target's owner change the answer. Whatever comes of it, a panic included, an answer that is not passed on is
// closed: the connection and whoever counts it wait for that.
func (x *exchange) editResponse(resp *http.Response) (err error) {
	if x.t.EditResponse == nil {
		return nil
	}
	good := false
	defer func() {
		if !good {
			resp.Body.Close()
		}
	}()
	err = x.t.EditResponse(resp)
	good = err == nil
	return err
}

// explain returns why there is no answer: because of the client's body, of the proxy, or of the target.
func (x *exchange) explain(err error) error {
	if bodyErr := x.body.failed(); bodyErr != nil {
		return bodyErr
	}
	if x.isDrained() {
		return errDraining
	}
	if cause := context.Cause(x.out.Context()); cause == errDraining {
		return cause
	}
	if x.t.Unanswered != nil {
		return x.t.Unanswered(err)
	}
	name := x.t.Name
	if name == "" {
		name = x.t.Host
	}
	x.mu.Lock()
	defer x.mu.Unlock()
	return &failure{name: name, connected: x.conn != nil, err: err}
}

// fail answers with an error. What the target still reads of the body ends first, with which net/http believes that the
// client is gone; a body that is late has the same effect.
func (x *exchange) fail(err error) {
	if x.r.Context().Err() != nil && !errors.Is(err, errBodySlow) && !x.body.wasInterrupted() {
		panic(http.ErrAbortHandler)
	}
	x.body.finish()
	x.closeIfLeft()
	x.p.writeStatus(x.w, x.r, statusOf(err))
}

// forward passes a request on that wants no upgrade.
func (x *exchange) forward() {
	resp, err := x.roundTrip(x.t.RoundTripper)
	if err != nil {
		x.fail(err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusSwitchingProtocols {
		x.fail(Status(http.StatusBadGateway, ReasonBadGateway, "the target has changed the protocol without being asked"))
		return
	}
	x.answer(resp)
}

// abort cuts the answer. net/http closes the connection (HTTP/1.1) or resets the stream (HTTP/2). An answer of HTTP/1.0 may
// well end with its connection, and there only a reset tells that it has not.
func (x *exchange) abort(err error) {
	if !x.r.ProtoAtLeast(1, 1) {
		if conn, _, err := http.NewResponseController(x.w).Hijack(); err == nil {
			relay.Reset(conn)
			conn.Close() // what rests on the connection
		}
	}
	if x.r.Context().Err() == nil {
		x.p.log.Debug("an answer was cut", "path", x.r.URL.Path, "error", err)
	}
	panic(http.ErrAbortHandler)
}
