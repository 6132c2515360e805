package guard

import (
	"slices"

	"k8s.io/apiserver/pkg/endpoints/request"
)

// Closed returns the classes that are refused, in the order of their names.
func (g *Guard) Closed() []string {
	var names []string
	for name, closed := range g.closed {
		if closed && !g.disabled {
			names = append(names, name)
		}
	}
	slices.Sort(names)
	return names
}

// DeniesTunnels says whether --deny takes away the subresource that tunnels to pods need, pods/portforward.
func (g *Guard) DeniesTunnels() bool {
	forward := &request.RequestInfo{IsResourceRequest: true, Verb: "create", Resource: "pods", Subresource: "portforward"}
	return slices.ContainsFunc(g.deny, func(r rule) bool { return r.covers(forward) })
}
