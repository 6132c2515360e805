package cluster

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"encoding/hex"
	"fmt"
	"net/http"
	"os"
	"slices"
	"time"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"varco.dev/internal/observe"
)

// rereads and rereadPause bound how long a kubeconfig that is being written is waited for; writing takes a millisecond.
const (
	rereads     = 5
	rereadPause = 50 * time.Millisecond
)

// transportConfig prepares the plugins that a configuration names. client-go keeps one exec plugin for each distinct
// configuration, so that all transports of a cluster share its credentials. It keeps one OIDC provider for each server,
// issuer and client, whatever tokens the kubeconfig has: tokens that were edited would not be seen, and a second user of
// the same cluster would be taken for the first. So the tokens are made part of what it goes by.
func transportConfig(config *rest.Config) (*transport.Config, error) {
	if config.AuthProvider == nil || config.ExecProvider != nil {
		return config.TransportConfig()
	}
	bare := rest.CopyConfig(config)
	bare.AuthProvider = nil
	out, err := bare.TransportConfig()
	if err != nil {
		return nil, err
	}
	tokens := sha256.Sum256([]byte(config.AuthProvider.Config["refresh-token"] + " " + config.AuthProvider.Config["id-token"]))
	place := config.Host + "#" + hex.EncodeToString(tokens[:])
	provider, err := rest.GetAuthProvider(place, config.AuthProvider, config.AuthConfigPersister)
	if err != nil {
		return nil, fmt.Errorf("prepare the auth provider %q: %w", config.AuthProvider.Name, err)
	}
	out.Wrap(provider.WrapTransport)
	return out, nil
}

// certificate returns the identity of the client's certificate as it is now: what its file has, or what the kubeconfig
// has, or what the exec plugin gave, which is the argument.
func (c *Cluster) certificate(plugin *tls.Certificate) (string, error) {
	t := c.transport.TLS
	if plugin != nil {
		sum := sha256.Sum256(slices.Concat(plugin.Certificate...))
		return string(sum[:]), nil
	}
	data := t.CertData
	if len(data) == 0 && t.CertFile != "" {
		var err error
		if data, err = os.ReadFile(t.CertFile); err != nil {
			return "", fmt.Errorf("read the client's certificate: %w", err)
		}
	}
	sum := sha256.Sum256(data)
	return string(sum[:]), nil
}

// plugin returns the certificate that the exec plugin gave last, and runs it if its credentials have expired.
func (c *Cluster) plugin() (*tls.Certificate, error) {
	holder := c.transport.TLS.GetCertHolder
	if holder == nil || holder.GetCert == nil {
		return nil, nil
	}
	return holder.GetCert()
}

// current returns the transports for a new request. If an exec plugin has given another certificate they are new ones:
// a connection goes on with the certificate that it began with, so that new requests need new connections, and what is
// open may end by itself. client-go's way is to cut all of them. An error of the plugin is left to its wrapper. For a
// request with a credential of its own the plugin is not asked.
func (c *Cluster) current(own bool) *generation {
	g := c.now.Load()
	if own || c.transport.TLS.GetCertHolder == nil {
		return g
	}
	if cert, err := c.plugin(); err != nil || cert == g.plugin {
		return g
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if g, err := c.certified(); err == nil {
		return g
	}
	return g
}

// certified returns transports that show the client's certificate of now, and keeps them. c.mu is held.
func (c *Cluster) certified() (*generation, error) {
	g := c.now.Load()
	plugin, err := c.plugin()
	if err != nil {
		return nil, err
	}
	certificate, err := c.certificate(plugin)
	if err != nil {
		return nil, err
	}
	if certificate == g.certificate {
		if plugin != g.plugin { // a copy of the same, by which requests tell at once that nothing has changed
			same := *g
			same.plugin = plugin
			g = &same
			c.now.Store(g)
		}
		return g, nil
	}
	next, err := c.generation(certificate, plugin)
	if err != nil {
		return nil, err
	}
	c.now.Store(next)
	g.closeIdle()
	return next, nil
}

// renew returns transports with another credential than the one that was refused, or nil if there is none: used are the
// transports of the request, sent the Authorization header that they sent. It reads everything that credentials come
// from at once, the kubeconfig too.
func (c *Cluster) renew(ctx context.Context, used *generation, sent string) *generation {
	c.reread(ctx)
	now := c.owner.standing(c)
	if now == nil || now.Server.String() != c.Server.String() {
		return nil // the request was for that server
	}
	return now.renewed(used, sent)
}

// reread takes over the kubeconfig as it is now. Programs empty it before they write it (kubectl and client-go's OIDC do),
// so that one that cannot be used is read a few times more.
func (c *Cluster) reread(ctx context.Context) {
	for range rereads {
		err := c.owner.reload(c)
		if err == nil {
			return
		}
		c.owner.config.Log.Debug("the kubeconfig cannot be taken over", "context", c.Name, "error", err)
		select {
		case <-time.After(rereadPause):
		case <-ctx.Done():
			return
		}
	}
}

func (c *Cluster) renewed(used *generation, sent string) *generation {
	c.mu.Lock()
	defer c.mu.Unlock()
	g, err := c.certified()
	if err != nil {
		return nil
	}
	header, err := authorization(c.transport, c.Server.String())
	if err != nil || header == sent && g.certificate == used.certificate {
		return nil
	}
	// New wrappers: those that are in use go by the token file as it was up to 50 seconds ago.
	if g, err = g.wrapped(c.transport); err != nil {
		return nil
	}
	c.now.Store(g)
	return g
}

// authorization returns the Authorization header that a request would be sent with now. Nothing is sent.
func authorization(config *transport.Config, server string) (header string, err error) {
	rt, err := transport.HTTPWrappersForConfig(config, roundTrip(func(r *http.Request) (*http.Response, error) {
		header = r.Header.Get("Authorization")
		return &http.Response{StatusCode: http.StatusOK, Header: http.Header{}, Body: http.NoBody, Request: r}, nil
	}))
	if err != nil {
		return "", err
	}
	r, err := http.NewRequest(http.MethodGet, server, http.NoBody)
	if err != nil {
		return "", err
	}
	// Without a log: client-go's wrappers would write there that it had been sent.
	_, err = rt.RoundTrip(r.WithContext(observe.Unlogged(r.Context())))
	return header, err
}

type roundTrip func(*http.Request) (*http.Response, error)

func (f roundTrip) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
