package origin

import (
	"errors"
	"io"
	"net"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"sync/atomic"
)

// carrier sends a request through a tunnel, and if the tunnel or the pod proves to be gone, once through another one.
type carrier struct {
	visit   *visit
	next    place
	upgrade bool
}

// RoundTrip implements http.RoundTripper. It is called once in a visit.
func (c *carrier) RoundTrip(req *http.Request) (*http.Response, error) {
	body := &begunBody{ReadCloser: req.Body}
	if req.Body != nil && req.Body != http.NoBody {
		out := *req
		out.Body, req = body, &out
	}
	resp, err := c.send(req, c.next)
	if err == nil || req.Context().Err() != nil || !repeatable(req, body.begun.Load(), err) {
		return resp, err
	}
	if errors.Is(err, errTunnelLost) {
		c.next.tunnel.suspect.Store(true)
	}
	var gone *ForwardError // a tunnel that broke says nothing about its pod
	if errors.As(err, &gone) && c.visit.dead(c.next.endpoint) != nil {
		return nil, err
	}
	other, dialErr := c.visit.reach()
	if dialErr != nil {
		return nil, err
	}
	return c.send(req, other)
}

// send addresses the request to the port inside the pod. A RoundTripper may not change what it is given.
func (c *carrier) send(req *http.Request, to place) (*http.Response, error) {
	out, at := *req, url.URL{}
	at = *req.URL
	at.Host = net.JoinHostPort(c.visit.route.host, strconv.Itoa(to.port))
	out.URL = &at
	return c.transport(req, to.tunnel).RoundTrip(&out)
}

func (c *carrier) transport(req *http.Request, t *tunnel) *http.Transport {
	switch {
	case c.upgrade:
		return t.web.http1
	case c.visit.route.protocol == overTLS:
		return t.web.alpn
	case c.visit.route.protocol == plainH2, isGRPC(req):
		return t.web.h2c
	}
	return t.web.http1
}

// isGRPC tells a request that only makes sense over HTTP/2, whatever the port is called.
func isGRPC(r *http.Request) bool {
	kind := r.Header.Get("Content-Type")
	return kind == "application/grpc" || strings.HasPrefix(kind, "application/grpc+") || strings.HasPrefix(kind, "application/grpc;")
}

// begunBody is a request's body that knows whether anybody has read of it.
type begunBody struct {
	io.ReadCloser
	begun atomic.Bool
}

// Read implements io.Reader.
func (b *begunBody) Read(p []byte) (int, error) {
	b.begun.Store(true)
	return b.ReadCloser.Read(p)
}

// repeatable says whether a request that failed may be sent again: if nothing of it can have reached the app, or if
// asking twice is harmless (RFC 9110, section 9.2.2); but not if a part of its body is gone.
func repeatable(req *http.Request, begun bool, err error) bool {
	var dial *net.OpError
	var forward *ForwardError
	switch {
	case begun:
		return false
	case errors.As(err, &dial) && dial.Op == "dial" && dial.Net == tunnelNet:
		return true
	case errors.As(err, &forward) && forward.refused():
		return true
	case errors.Is(err, errTunnelLost), forward != nil:
		return req.Method == http.MethodGet || req.Method == http.MethodHead || req.Method == http.MethodOptions
	}
	return false
}
