package cluster

import "context"

// Refresh reads the kubeconfig and the files of credentials now, as a 401 does. If this context has changed, the cluster that
// Clusters.Get returns afterwards is another one.
func (c *Cluster) Refresh() {
	c.reread(context.Background())
	if now := c.owner.standing(c); now != nil {
		now.renewed(now.now.Load(), "")
	}
}
