package vouch

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"time"

	"k8s.io/client-go/rest"

	"varco.dev/internal/filewatch"
	"varco.dev/internal/httpproxy"
)

const (
	// idlePerHost is how many unused HTTP/1.1 connections to the API server are kept.
	idlePerHost = 256
	// idleTimeout is how long: less than the API server does (90 s), so that a request does not meet a connection that is
	// just being closed.
	idleTimeout      = 60 * time.Second
	connectTimeout   = 30 * time.Second // client-go's
	handshakeTimeout = 10 * time.Second // client-go's
	continueTimeout  = time.Second      // that of http.DefaultTransport: a body waits so long for the API server to ask for it
	keepAlive        = 30 * time.Second // client-go's
	pingInterval     = 30 * time.Second // client-go's: of a connection of HTTP/2 on which nothing comes
	pingTimeout      = 15 * time.Second // client-go's
)

// lanes are the transports to the API server for clients of one kind: those whose identity is carried over, with the
// front-proxy certificate, and all others, without any. Ordinary requests take HTTP/1.1, which costs half of HTTP/2; those
// that last share connections of HTTP/2; upgrades are possible in HTTP/1.1 alone.
type lanes struct {
	ordinary, lasting, upgrading *http.Transport
}

func (o *Origin) newLanes(secure *tls.Config) *lanes {
	lane := func(protocols ...string) *http.Transport {
		config := secure.Clone()
		config.NextProtos = protocols
		return &http.Transport{
			Proxy: o.proxy, DialContext: o.dial, TLSClientConfig: config, TLSHandshakeTimeout: o.hello,
			DisableCompression: true, ExpectContinueTimeout: continueTimeout, Protocols: protocolsOf(protocols),
			MaxIdleConnsPerHost: idlePerHost, IdleConnTimeout: idleTimeout,
		}
	}
	l := &lanes{ordinary: lane("http/1.1"), lasting: lane("h2", "http/1.1"), upgrading: lane("http/1.1")}
	l.upgrading.MaxIdleConnsPerHost = -1 // net/http sends a GET twice where a connection breaks that has served before, an exec as well
	l.ordinary.DialContext = httpproxy.BufferDial(l.ordinary.DialContext)
	l.lasting.HTTP2 = &http.HTTP2Config{
		SendPingTimeout: pingInterval, PingTimeout: pingTimeout,
		MaxReceiveBufferPerStream: streamBuffer, // net/http's 4 MiB would be held for each watch whose client does not read
	}
	return l
}

func protocolsOf(names []string) *http.Protocols {
	p := &http.Protocols{}
	p.SetHTTP1(true)
	p.SetHTTP2(names[0] == "h2")
	return p
}

// close ends what is idle; what is not ends by itself, and is idle then only until its time is over.
func (l *lanes) close() {
	if l != nil {
		l.ordinary.CloseIdleConnections()
		l.lasting.CloseIdleConnections()
		l.upgrading.CloseIdleConnections()
	}
}

// Origin is the API server: where it is and how it is known, without any of this server's own credentials.
type Origin struct {
	server *url.URL
	config rest.TLSClientConfig
	proxy  func(*http.Request) (*url.URL, error) // of the kubeconfig (proxy-url); nil: none, whatever the environment says
	dial   func(ctx context.Context, network, addr string) (net.Conn, error)
	hello  time.Duration
}

// NewOrigin takes of a configuration where the API server is and how it is known, and proxy-url. The address must be of https.
func NewOrigin(config *rest.Config) (*Origin, error) {
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("read the API server's address: %w", err)
	}
	if server.Scheme != "https" {
		return nil, fmt.Errorf("the API server's address %s is not of https: nothing but TLS tells it, or whatever is there in its place, that an identity comes from here", server)
	}
	tlsConfig := config.TLSClientConfig
	tlsConfig.CertFile, tlsConfig.KeyFile, tlsConfig.CertData, tlsConfig.KeyData = "", "", nil, nil
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: keepAlive}
	return &Origin{server: server, config: tlsConfig, proxy: config.Proxy, dial: dialer.DialContext, hello: handshakeTimeout}, nil
}

// Dialing has connections made by dial, which bounds how long that takes, and their handshakes bounded by hello. It must be
// called before the origin is used.
func (o *Origin) Dialing(dial func(ctx context.Context, network, addr string) (net.Conn, error), hello time.Duration) {
	o.dial, o.hello = dial, hello
}

// base returns how the API server is recognised. Of TLS, only that.
func (o *Origin) base() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.config.ServerName, InsecureSkipVerify: o.config.Insecure}
	authority := o.config.CAData
	if len(authority) == 0 && o.config.CAFile != "" {
		var err error
		if authority, err = filewatch.Read(o.config.CAFile, filewatch.Most); err != nil {
			return nil, fmt.Errorf("read the API server's authority: %w", err)
		}
	}
	if len(authority) > 0 && !o.config.Insecure {
		c.RootCAs = x509.NewCertPool()
		if !c.RootCAs.AppendCertsFromPEM(authority) {
			return nil, fmt.Errorf("read the API server's authority: there is no certificate in PEM")
		}
	}
	return c, nil
}

// lanes returns new transports for both kinds of clients; those with a certificate are nil if there is none.
func (o *Origin) lanes(certFile, keyFile string) (*passLanes, error) {
	base, err := o.base()
	if err != nil {
		return nil, err
	}
	l := &passLanes{plain: o.newLanes(base)}
	if certFile == "" {
		return l, nil
	}
	pair, err := filewatch.ReadPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the front-proxy certificate: %w", err)
	}
	if l.chain, err = parsed(pair.Certificate); err != nil {
		return nil, err
	}
	secure := base.Clone()
	// Whatever authorities the API server names: with another certificate it would not be asked.
	secure.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	l.identified = o.newLanes(secure)
	return l, nil
}
