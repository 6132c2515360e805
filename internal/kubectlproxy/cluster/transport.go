package cluster

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/http"
	"time"

	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/client-go/transport"

	"varco.dev/internal/httpproxy"
)

const (
	// idlePerHost is how many unused HTTP/1.1 connections to an API server are kept. client-go keeps 25, which is plenty
	// for HTTP/2 and makes 32 clients dial again and again with HTTP/1.1.
	idlePerHost = 256

	// idleTimeout is how long they are kept: less than the API server does, which is client-go's 90 s, so that a request
	// does not meet a connection that is just being closed.
	idleTimeout = 60 * time.Second

	connectTimeout = 30 * time.Second // client-go's
	// continueTimeout is how long a body is held back for the API server's "100 Continue" if the client asked for it;
	// that of http.DefaultTransport. client-go's transports do not wait at all.
	continueTimeout = time.Second
	keepAlive       = 30 * time.Second // client-go's, for all connections but upgraded ones
)

// lane is a kind of requests that has its own transport.
type lane int

const (
	ordinary  lane = iota // HTTP/1.1: measured 1.75 to 1.9 times the requests per second of HTTP/2, at half the CPU
	streaming             // HTTP/2: 200 watches are one connection
	upgrading             // HTTP/1.1, whose 101 answer has an io.ReadWriteCloser as body
	lanes
)

// dialFunc is the type of net.Dialer.DialContext.
type dialFunc = func(ctx context.Context, network, addr string) (net.Conn, error)

// generation is all transports of a cluster, made with one state of its credentials.
type generation struct {
	certificate string           // identity of the client's certificate, see credential.certificate
	plugin      *tls.Certificate // the one that an exec plugin gave; nil: none
	base        [lanes]http.RoundTripper
	auth        [lanes]http.RoundTripper // base with credentials
}

// generation builds transports, and opens no connection.
func (c *Cluster) generation(certificate string, plugin *tls.Certificate) (*generation, error) {
	g := &generation{certificate: certificate, plugin: plugin}
	for l := range lanes {
		base, err := c.base(l)
		if err != nil {
			return nil, err
		}
		g.base[l] = base
	}
	return g.wrapped(c.transport)
}

// wrapped returns the generation with the same connections and new wrappers, which have read no token file yet.
func (g *generation) wrapped(config *transport.Config) (*generation, error) {
	next := *g
	for l := range lanes {
		auth, err := transport.HTTPWrappersForConfig(config, next.base[l])
		if err != nil {
			return nil, fmt.Errorf("add the credentials: %w", err)
		}
		next.auth[l] = auth
	}
	return &next, nil
}

func (g *generation) closeIdle() {
	for l := range lanes {
		if t, ok := innermost(g.base[l]); ok {
			t.CloseIdleConnections()
		}
	}
}

// base builds the transport of a lane without credentials other than certificates. The dialer's holder is new each
// time, so that client-go shares the transport with nobody; an exec plugin's dialer, which cuts all connections that
// are open when the plugin gives another certificate, is not taken: see Cluster.current.
func (c *Cluster) base(l lane) (http.RoundTripper, error) {
	var base http.RoundTripper
	config := &transport.Config{
		TLS:                c.transport.TLS,
		DialHolder:         &transport.DialHolder{Dial: c.dial(l)},
		Proxy:              c.transport.Proxy,
		DisableCompression: true, // Target.Decompress does it, with the client's wishes in mind
		WrapTransport:      func(rt http.RoundTripper) http.RoundTripper { base = rt; return rt },
	}
	if l != streaming {
		config.TLS.NextProtos = []string{"http/1.1"}
	}
	if _, err := transport.New(config); err != nil {
		return nil, fmt.Errorf("build the transport: %w", err)
	}
	c.tune(l, base)
	return base, nil
}

func (c *Cluster) dial(l lane) dialFunc {
	if l == upgrading {
		return c.owner.config.Keepalive.dialer().DialContext
	}
	return (&net.Dialer{Timeout: connectTimeout, KeepAlive: keepAlive}).DialContext
}

// tune changes what client-go has no setting for, before the first use.
func (c *Cluster) tune(l lane, base http.RoundTripper) {
	t, ok := innermost(base)
	if !ok {
		c.owner.config.Log.Debug("client-go's transport is out of reach; it keeps its own limits", "context", c.Name)
		return
	}
	t.ExpectContinueTimeout = continueTimeout
	switch l {
	case ordinary:
		t.MaxIdleConnsPerHost, t.IdleConnTimeout = idlePerHost, idleTimeout
		t.DialContext = httpproxy.BufferDial(t.DialContext)
	case upgrading:
		// Without client-go's dialer for certificate files: a new certificate must not cut the sessions that are open. Each
		// of them has its own connection, so that the next one shows the new certificate anyway.
		t.DialContext = c.dial(l)
	}
}

// innermost finds net/http's transport inside client-go's.
func innermost(rt http.RoundTripper) (*http.Transport, bool) {
	for {
		switch t := rt.(type) {
		case *http.Transport:
			return t, true
		case utilnet.RoundTripperWrapper:
			rt = t.WrappedRoundTripper()
		default:
			return nil, false
		}
	}
}
