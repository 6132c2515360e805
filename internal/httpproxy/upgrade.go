package httpproxy

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/relay"
)

// upgrade passes on a request that wants another protocol, and if the target agrees, all that both sides say in it.
func (x *exchange) upgrade() {
	switch {
	case x.r.ProtoMajor != 1:
		x.fail(Status(http.StatusNotImplemented, metav1.StatusReasonMethodNotAllowed,
			"a connection of HTTP/2 cannot be upgraded; send the request over HTTP/1.1"))
		return
	case x.t.Upgrade == nil:
		x.fail(Status(http.StatusNotImplemented, metav1.StatusReasonMethodNotAllowed,
			fmt.Sprintf("upgrades (here to %q) are not offered here", upgradeOf(x.r.Header))))
		return
	}
	resp, err := x.roundTrip(x.t.Upgrade)
	if err != nil {
		x.fail(err)
		return
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusSwitchingProtocols {
		x.answer(resp)
		return
	}
	x.join(resp)
}

// join switches the client's connection over.
func (x *exchange) join(resp *http.Response) {
	wanted, got := upgradeOf(x.r.Header), upgradeOf(resp.Header)
	target, ok := resp.Body.(io.ReadWriteCloser)
	if !ok || !hasToken([]string{wanted}, got) {
		x.fail(Status(http.StatusBadGateway, ReasonBadGateway,
			fmt.Sprintf("the target has changed the protocol to %q, but %q was asked for", got, wanted)))
		return
	}
	if x.body.left() {
		// RFC 9110, 7.8: the other protocol begins after the request. What is left would be taken for a part of it.
		x.fail(Status(http.StatusBadGateway, ReasonBadGateway, "the target has changed the protocol before it had all of the request"))
		return
	}
	header := x.switched(resp)
	client, read, err := http.NewResponseController(x.w).Hijack()
	if err != nil {
		x.fail(Status(http.StatusNotImplemented, metav1.StatusReasonMethodNotAllowed, "this connection cannot be upgraded: "+err.Error()))
		return
	}
	ahead, _ := read.Reader.Peek(read.Reader.Buffered()) // it has them
	side := &stream{ReadWriteCloser: client, conn: client, ahead: bytes.Clone(ahead)}
	if _, err := client.Write(header); err != nil {
		client.Close()
		return
	}
	x.mu.Lock()
	below := x.conn
	x.mu.Unlock()
	if err := relay.Join(x.out.Context(), side, &stream{ReadWriteCloser: target, conn: below}); err != nil {
		x.p.log.Debug("an upgraded connection has ended early", "path", x.r.URL.Path, "error", err)
	}
}

// switched returns the header of the 101 answer, as bytes: after Hijack net/http writes nothing any more.
func (x *exchange) switched(resp *http.Response) []byte {
	h := x.w.Header()
	drop := connectionOptions(resp.Header)
	for k, v := range resp.Header {
		if !isHop(k) && !drop.has(k) {
			h[k] = append(h[k][:len(h[k]):len(h[k])], v...)
		}
	}
	h["Connection"], h["Upgrade"] = []string{"Upgrade"}, resp.Header["Upgrade"]
	var b bytes.Buffer
	b.WriteString("HTTP/1.1 101 Switching Protocols\r\n")
	_ = h.Write(&b) // a buffer takes all
	b.WriteString("\r\n")
	return b.Bytes()
}

// stream is one side of an upgraded connection.
type stream struct {
	io.ReadWriteCloser
	conn  net.Conn // below, for a reset; nil: unknown
	ahead []byte   // what was read before the upgrade
}

// Read implements io.Reader.
func (s *stream) Read(p []byte) (int, error) {
	if len(s.ahead) > 0 {
		n := copy(p, s.ahead)
		s.ahead = s.ahead[n:]
		return n, nil
	}
	return s.ReadWriteCloser.Read(p)
}

// NetConn returns the connection below, as that of crypto/tls does.
func (s *stream) NetConn() net.Conn { return s.conn }

// CloseWrite ends the direction of the writes. What cannot is closed as a whole: the other side may wait for the end.
func (s *stream) CloseWrite() error {
	half, ok := s.ReadWriteCloser.(interface{ CloseWrite() error })
	if !ok {
		return s.Close()
	}
	err := half.CloseWrite()
	if errors.Is(err, errors.ErrUnsupported) {
		return s.Close()
	}
	return err
}
