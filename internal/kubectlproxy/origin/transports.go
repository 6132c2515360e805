package origin

import (
	"context"
	"crypto/tls"
	"net"
	"net/http"
	"time"
)

// Bounds of what is kept open to one pod.
const (
	// IdleConnTimeout is how long a connection to an app waits for its next request.
	IdleConnTimeout = 30 * time.Second
	// MaxIdleConns is how many connections to one port wait at a time.
	MaxIdleConns = 16
	// MaxConns is how many connections one tunnel has for HTTP/1.1; further requests wait for one of them.
	MaxConns = 256
)

// transports speak HTTP through one tunnel: what a scheme and a request want differs by protocol.
type transports struct {
	http1 *http.Transport // HTTP/1.1, over TLS too: upgrades replace the connection
	alpn  *http.Transport // what the app chooses in TLS
	h2c   *http.Transport // HTTP/2 without TLS and without asking (RFC 9113, section 3.3)
}

func newTransports(dial func(ctx context.Context, network, addr string) (net.Conn, error)) transports {
	var http1, alpn, h2c http.Protocols
	http1.SetHTTP1(true)
	alpn.SetHTTP1(true)
	alpn.SetHTTP2(true)
	h2c.SetUnencryptedHTTP2(true)
	make := func(p http.Protocols) *http.Transport {
		return &http.Transport{
			DialContext: dial, Protocols: &p,
			// Names in certificates of apps say nothing here, and the way to the pod is the API server's.
			TLSClientConfig:     &tls.Config{InsecureSkipVerify: true}, //nolint:gosec // as said
			TLSHandshakeTimeout: StreamTimeout, ExpectContinueTimeout: time.Second,
			IdleConnTimeout: IdleConnTimeout, MaxIdleConnsPerHost: MaxIdleConns, MaxConnsPerHost: MaxConns,
			WriteBufferSize: frameBytes, ReadBufferSize: frameBytes,
			DisableCompression: true, // the answer is passed on as it is
		}
	}
	return transports{http1: make(http1), alpn: make(alpn), h2c: make(h2c)}
}

func (t transports) closeIdle() {
	t.http1.CloseIdleConnections()
	t.alpn.CloseIdleConnections()
	t.h2c.CloseIdleConnections()
}
