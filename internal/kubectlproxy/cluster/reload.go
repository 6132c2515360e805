package cluster

import (
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"reflect"

	"k8s.io/client-go/rest"
)

// reload takes over the kubeconfig if it is another than the one that was read last. Clusters whose entries are the
// same stay as they are; the others are built anew, and the old ones serve what they have begun. With asked, nothing is
// taken over unless the context of that cluster can still be used: a file may be read while it is being written.
func (c *Clusters) reload(asked *Cluster) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	old, content := c.view.Load(), c.content()
	if old == nil || old.content == content && !old.behind {
		return nil
	}
	next, err := c.read(content)
	if err != nil {
		return err
	}
	if len(next.known) == 0 && len(old.known) > 0 {
		return errors.New("it has no contexts any more")
	}
	gone, err := c.carry(old, next, asked)
	if err != nil {
		return err
	}
	c.view.Store(next)
	for _, cl := range gone {
		cl.closeIdle()
	}
	c.config.Log.Info("the kubeconfig has changed", "context", next.current, "clustersReplaced", len(gone))
	return nil
}

// catchUp tries again whether the current context can be used, if it could not: a file that the kubeconfig names may have
// come since. Until then nothing changes, and nothing is logged.
func (c *Clusters) catchUp() {
	if v := c.view.Load(); v != nil && v.behind {
		_ = c.reload(v.built[""]) // the log has the error of the first time
	}
}

// carry fills the next view with the clusters that are in use, old or built anew, and returns those that are replaced.
func (c *Clusters) carry(old, next *view, asked *Cluster) (gone []*Cluster, err error) {
	for key, cl := range old.built {
		fresh, err := c.successor(next, key, cl)
		switch {
		case err != nil && cl == asked:
			return nil, err
		case err != nil && key == "":
			c.config.Log.Warn("the current context cannot be used; the one before stays in use", "error", err)
			next.built[key], next.behind = cl, true
		case err != nil:
			c.config.Log.Info("a context cannot be used any more", "context", key, "error", err)
			gone = append(gone, cl)
		default:
			next.built[key] = fresh
			if fresh != cl {
				gone = append(gone, cl)
			}
		}
	}
	return gone, nil
}

// successor returns the cluster itself if nothing about it has changed, or a new one.
func (c *Clusters) successor(next *view, key string, cl *Cluster) (*Cluster, error) {
	if key != "" && !next.has(key) {
		return nil, fmt.Errorf("context %q does not exist any more", key)
	}
	config, err := c.restConfig(key)
	if err != nil {
		return nil, err
	}
	if cl.Name == next.nameOf(key) && same(cl.Config, config) {
		return cl, nil
	}
	return newCluster(c, key, next.nameOf(key), config)
}

// same compares what two configurations say. Functions cannot be compared: of the proxy its address is, and the writer
// of OIDC tokens follows from the rest.
func same(a, b *rest.Config) bool {
	if proxyURL(a) != proxyURL(b) {
		return false
	}
	return reflect.DeepEqual(words(a), words(b))
}

// words returns what a configuration says, without functions.
func words(c *rest.Config) *rest.Config {
	out := rest.CopyConfig(c)
	out.Proxy, out.AuthConfigPersister = nil, nil
	if out.BearerTokenFile != "" {
		out.BearerToken = "" // what was in the file; the transport reads it again
	}
	return out
}

// proxyURL returns the proxy-url of the kubeconfig, which is the same for all requests.
func proxyURL(c *rest.Config) string {
	if c.Proxy == nil {
		return ""
	}
	u, err := c.Proxy(&http.Request{URL: &url.URL{Scheme: "https", Host: "kubernetes"}})
	if err != nil || u == nil {
		return ""
	}
	return u.String()
}

// standing returns the cluster that serves the same context now. nil: none does.
func (c *Clusters) standing(cl *Cluster) *Cluster {
	return c.view.Load().built[cl.key]
}

func (c *Clusters) closeIdle() {
	v := c.view.Load()
	if v == nil {
		return
	}
	for _, cl := range v.built {
		cl.closeIdle()
	}
}
