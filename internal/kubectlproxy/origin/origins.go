package origin

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net/http"
	"net/url"

	"varco.dev/internal/httpproxy"
	"varco.dev/internal/kubectlproxy/cluster"
)

// How requests travel.
const (
	ModeAuto   = "auto"   // through a tunnel, and over services/proxy where that is not possible
	ModeTunnel = "tunnel" // through a tunnel or not at all
	ModeProxy  = "proxy"  // over services/proxy and pods/proxy
)

// Clusters knows the clusters. *cluster.Clusters is one.
type Clusters interface {
	// ByLabel returns the cluster with a label, or the current one for the empty label. It is called for each request, and
	// returns the same *cluster.Cluster as long as nothing changes. The error is what the client is told.
	ByLabel(label string) (*cluster.Cluster, error)
}

// Config is what New wants to know. All is required but Mode.
type Config struct {
	Clusters Clusters
	Proxy    *httpproxy.Proxy
	Mode     string // one of the constants; "": ModeAuto
	Log      *slog.Logger
}

// Origins serve the Services and pods of clusters, each under a host name of its own.
type Origins struct {
	config   Config
	routes   *routes
	tunnels  *tunnels
	refusals refusals
}

// New returns Origins without tunnels.
func New(c Config) *Origins {
	if c.Mode == "" {
		c.Mode = ModeAuto
	}
	return &Origins{config: c, routes: newRoutes(), tunnels: newTunnels(dialPod)}
}

// Run ends tunnels that nobody uses until ctx ends, and then all of them: requests should have ended before. It returns
// nil when nothing of them runs any more. Serve works before Run is called.
func (o *Origins) Run(ctx context.Context) error {
	o.tunnels.run(ctx)
	return nil
}

// Open returns how many tunnels are open, and how many TCP connections to apps are in them.
func (o *Origins) Open() (open, conns int) { return o.tunnels.size() }

// Serve passes a request on to the port that its host names, as Parse read it. Whoever calls has checked that the
// client may.
func (o *Origins) Serve(w http.ResponseWriter, r *http.Request, at Origin) {
	c, err := o.config.Clusters.ByLabel(at.Label)
	if err != nil {
		httpproxy.Fail(w, r, err)
		return
	}
	v := &visit{origins: o, cluster: c, at: at, r: r}
	defer v.end()
	target, err := v.target()
	if err != nil {
		httpproxy.Fail(w, r, err)
		return
	}
	o.config.Proxy.Serve(w, v.r, target)
}

// maxObject bounds an answer of the API server: an EndpointSlice has at most 1000 endpoints, and a Service as many as
// it likes.
const maxObject = 32 << 20

// reader returns a getter for a cluster, with the connections and the credential of its other requests.
func reader(c *cluster.Cluster) getter {
	return func(ctx context.Context, path string, into any) error {
		u, err := url.Parse(path)
		if err != nil {
			return fmt.Errorf("asking for %s: %w", path, err)
		}
		req := (&http.Request{Method: http.MethodGet, URL: u, Header: http.Header{"Accept": {"application/json"}}}).WithContext(ctx)
		target, err := c.Target(req, false)
		if err != nil {
			return err
		}
		u.Scheme, u.Host = target.Scheme, target.Host
		if target.Edit != nil {
			target.Edit(req)
		}
		resp, err := target.RoundTripper.RoundTrip(req)
		if err != nil {
			return httpproxy.Unanswered(target.Name, err)
		}
		return decode(resp, into)
	}
}

func decode(resp *http.Response, into any) error {
	defer resp.Body.Close()
	text, err := io.ReadAll(io.LimitReader(resp.Body, maxObject))
	switch {
	case err != nil:
		return fmt.Errorf("reading the API server's answer: %w", err)
	case resp.StatusCode != http.StatusOK:
		return statusError(resp.StatusCode, text)
	}
	if err := json.Unmarshal(text, into); err != nil {
		return fmt.Errorf("reading the API server's answer: %w", err)
	}
	return nil
}
