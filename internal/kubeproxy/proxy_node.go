package kubeproxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"slices"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/apiwatch"
	"varco.dev/internal/kubeproxy/config"
	"varco.dev/internal/kubeproxy/health"
	"varco.dev/internal/service"
)

// podCIDRsRetry is the pause between two questions for the node's pod networks, askTimeout the bound of each.
const (
	podCIDRsRetry = time.Second
	askTimeout    = 5 * time.Second
	podCIDRsQuiet = 10 // questions between two log lines
)

// setNode takes what the API server says of this node. All of it is applied at once.
func (p *Proxy) setNode(n apiwatch.Node) {
	p.mu.Lock()
	p.node = n
	p.mu.Unlock()
	if n.Exists {
		p.problems.clear("node")
	} else {
		p.problems.set("node", errNoNode)
	}
	p.ports.setNode(n.Addrs)
	if p.byPodCIDRs() && n.Exists && len(n.PodCIDRs) > 0 && !slices.Equal(n.PodCIDRs, p.config.PodCIDRs) {
		select {
		case p.podCIDRs <- struct{}{}:
		default:
		}
	}
}

// errNoNode is what is wrong where the Node object is missing, mostly because of a wrong name.
var errNoNode = errors.New("there is no Node object of this name, so no endpoint is known to be on this node: check --hostname-override")

// lookForNode says where the Node object is missing, now that all that there is is known.
func (p *Proxy) lookForNode() {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.node.Exists {
		p.problems.set("node", errNoNode)
		p.config.Log.Warn(errNoNode.Error())
	}
}

func (p *Proxy) setNodeAddrs(addrs []netip.Addr) {
	p.loop.Update(func(t *service.Table) { t.SetNodeAddrs(addrs) })
}

// eligible tells whether load balancers may send traffic to this node.
func (p *Proxy) eligible() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return health.Eligible(p.node)
}

func (p *Proxy) byPodCIDRs() bool { return p.config.Settings.DetectLocal.Mode == config.ByNodeCIDR }

// followPodCIDRs ends with ErrPodCIDRs when they change.
func (p *Proxy) followPodCIDRs(ctx context.Context) error {
	select {
	case <-ctx.Done():
		return nil
	case <-p.podCIDRs:
		return ErrPodCIDRs
	}
}

// AwaitPodCIDRs returns the pod networks of the node of a Config whose other fields may be empty, once the Node object has
// some: the controller that gives them comes after the node. It returns nil when the context ends.
func AwaitPodCIDRs(ctx context.Context, c Config) []netip.Prefix {
	for attempt := 0; ; attempt++ {
		cidrs, err := askPodCIDRs(ctx, c)
		if err == nil && len(cidrs) > 0 {
			return cidrs
		}
		if attempt%podCIDRsQuiet == podCIDRsQuiet-1 {
			c.Log.Warn("still waiting for the Node object to have pod networks, which detectLocalMode NodeCIDR needs", "error", err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(podCIDRsRetry):
		}
	}
}

func askPodCIDRs(ctx context.Context, c Config) ([]netip.Prefix, error) {
	ctx, cancel := context.WithTimeout(ctx, askTimeout)
	defer cancel()
	obj, err := c.Client.CoreV1().Nodes().Get(ctx, c.NodeName, metav1.GetOptions{})
	if err != nil {
		return nil, fmt.Errorf("ask for the Node object: %w", err)
	}
	n, _ := apiwatch.NodeOf(obj) // what is wrong with it is said when it is watched
	return n.PodCIDRs, nil
}
