package server

import (
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"

	"k8s.io/client-go/rest"

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

func newLanes(secure *tls.Config, proxy func(*http.Request) (*url.URL, error)) *lanes {
	dialer := &net.Dialer{Timeout: connectTimeout, KeepAlive: keepAlive}
	lane := func(protocols ...string) *http.Transport {
		config := secure.Clone()
		config.NextProtos = protocols
		return &http.Transport{
			Proxy: proxy, DialContext: dialer.DialContext, TLSClientConfig: config, TLSHandshakeTimeout: handshakeTimeout,
			DisableCompression: true, ExpectContinueTimeout: continueTimeout, Protocols: protocolsOf(protocols),
			MaxIdleConnsPerHost: idlePerHost, IdleConnTimeout: idleTimeout,
		}
	}
	l := &lanes{ordinary: lane("http/1.1"), lasting: lane("h2", "http/1.1"), upgrading: lane("http/1.1")}
	l.ordinary.DialContext = httpproxy.BufferDial(l.ordinary.DialContext)
	l.lasting.HTTP2 = &http.HTTP2Config{SendPingTimeout: pingInterval, PingTimeout: pingTimeout}
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

// origin is the API server: where it is and how it is known, without any of this server's own credentials.
type origin struct {
	server *url.URL
	config rest.TLSClientConfig
	proxy  func(*http.Request) (*url.URL, error) // of the kubeconfig (proxy-url); nil: none, whatever the environment says
}

func newOrigin(config *rest.Config) (*origin, error) {
	server, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("read the API server's address: %w", err)
	}
	if server.Scheme != "https" {
		return nil, fmt.Errorf("the API server's address %s is not of https: nothing but TLS tells it, or whatever is there in its place, that an identity comes from here", server)
	}
	tlsConfig := config.TLSClientConfig
	tlsConfig.CertFile, tlsConfig.KeyFile, tlsConfig.CertData, tlsConfig.KeyData = "", "", nil, nil
	return &origin{server: server, config: tlsConfig, proxy: config.Proxy}, nil
}

// base returns how the API server is recognised. Of TLS, only that.
func (o *origin) base() (*tls.Config, error) {
	c := &tls.Config{MinVersion: tls.VersionTLS12, ServerName: o.config.ServerName, InsecureSkipVerify: o.config.Insecure}
	authority := o.config.CAData
	if len(authority) == 0 && o.config.CAFile != "" {
		var err error
		if authority, err = os.ReadFile(o.config.CAFile); err != nil {
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
func (o *origin) lanes(certFile, keyFile string) (*passLanes, error) {
	base, err := o.base()
	if err != nil {
		return nil, err
	}
	l := &passLanes{plain: newLanes(base, o.proxy)}
	if certFile == "" {
		return l, nil
	}
	pair, err := tls.LoadX509KeyPair(certFile, keyFile)
	if err != nil {
		return nil, fmt.Errorf("read the front-proxy certificate: %w", err)
	}
	if l.chain, err = parsed(pair.Certificate); err != nil {
		return nil, err
	}
	secure := base.Clone()
	// Whatever authorities the API server names: with another certificate it would not be asked.
	secure.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &pair, nil }
	l.identified = newLanes(secure, o.proxy)
	return l, nil
}
