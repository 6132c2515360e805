package cluster

import (
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"sync"
	"sync/atomic"

	"k8s.io/client-go/rest"
	"k8s.io/client-go/transport"

	"varco.dev/internal/httpproxy"
)

// Cluster is one API server with the credentials of one context. All methods may be called at the same time. A cluster
// that the kubeconfig no longer describes goes on working for those that hold it.
type Cluster struct {
	Name   string       // of the context; empty: there is none, as in a pod
	Config *rest.Config // as client-go takes it, for clients of their own; not to be changed
	Server *url.URL     // of the API server, with its path; not to be changed

	owner     *Clusters
	key       string            // what it was asked for by; empty: the current context
	transport *transport.Config // Config, with plugins ready
	mu        sync.Mutex        // held while credentials are renewed
	now       atomic.Pointer[generation]
	targets   [2]httpproxy.Target // of ordinary and of long-running requests
}

func newCluster(owner *Clusters, key, name string, config *rest.Config) (*Cluster, error) {
	c := &Cluster{Name: name, Config: config, owner: owner, key: key}
	if err := c.prepare(); err != nil {
		return nil, fmt.Errorf("%s: %w", called(key), err)
	}
	return c, nil
}

func (c *Cluster) prepare() (err error) {
	if c.Server, _, err = rest.DefaultServerUrlFor(c.Config); err != nil {
		return fmt.Errorf("read the server's address: %w", err)
	}
	if c.transport, err = transportConfig(c.Config); err != nil {
		return err
	}
	certificate, err := c.certificate(nil)
	if err != nil {
		return err
	}
	g, err := c.generation(certificate, nil)
	if err != nil {
		return err
	}
	c.now.Store(g)
	c.targets = [2]httpproxy.Target{c.target(ordinary), c.target(streaming)}
	return nil
}

func (c *Cluster) target(l lane) httpproxy.Target {
	t := httpproxy.Target{
		Name: "the API server " + c.Server.Host, Scheme: c.Server.Scheme, Host: c.Server.Host,
		RoundTripper: &replayer{c, l}, Upgrade: &replayer{c, upgrading},
		Decompress: l == ordinary && !c.Config.DisableCompression,
	}
	if prefix := strings.TrimRight(c.Server.EscapedPath(), "/"); prefix != "" && c.owner.config.ServerPath {
		t.Edit = under(prefix)
	}
	return t
}

// under returns a change that puts the path of the API server before the path that is asked for, as it was sent.
func under(prefix string) func(*http.Request) {
	plain, err := url.PathUnescape(prefix)
	if err != nil {
		plain = prefix // cannot be: EscapedPath is an encoding
	}
	return func(out *http.Request) {
		out.URL.RawPath = prefix + out.URL.EscapedPath()
		out.URL.Path = plain + out.URL.Path
	}
}

// Target returns where a request goes. longRunning says that its answer lasts, as that of a watch does. The error is a
// Kubernetes status that the client should get.
func (c *Cluster) Target(r *http.Request, longRunning bool) (httpproxy.Target, error) {
	t := c.targets[0]
	if longRunning {
		t = c.targets[1]
	}
	if len(r.Header["Authorization"]) == 0 {
		return t, nil
	}
	return c.clientAuthorization(t)
}

func (c *Cluster) closeIdle() { c.now.Load().closeIdle() }
