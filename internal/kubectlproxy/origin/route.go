package origin

import (
	"cmp"
	"hash/maphash"
	"math/rand/v2"
	"slices"
)

// endpoint is a port of a pod.
type endpoint struct {
	podName
	port int
}

// route is what an origin means at the moment.
type route struct {
	protocol    protocol
	host        string     // in-cluster name: what TLS asks for, and by which HTTP connections are pooled
	servicePort string     // for services/proxy and pods/proxy: name or number
	endpoints   []endpoint // ready ones, at most spread of them
	sticky      bool       // sessionAffinity: ClientIP
	podless     bool       // there are endpoints, but none of them is a pod
}

// spread is among how many pods of a Service requests are spread. Each has a tunnel of its own; kubectl port-forward,
// which people use for the same, has one.
const spread = 8

// narrow keeps spread endpoints, by the order of a hash so that the next look chooses the same ones.
func (r *route) narrow(seed maphash.Seed) {
	slices.SortFunc(r.endpoints, func(a, b endpoint) int { return cmp.Compare(weight(seed, "", a), weight(seed, "", b)) })
	r.endpoints = slices.Compact(r.endpoints)
	r.endpoints = r.endpoints[:min(len(r.endpoints), spread)]
}

// choose takes one of the endpoints, but none of those that failed; false if there is none left. A client of a sticky
// Service gets the same one as long as it is ready.
func (r *route) choose(seed maphash.Seed, client string, failed []endpoint) (endpoint, bool) {
	left := r.endpoints
	if len(failed) > 0 {
		left = slices.DeleteFunc(slices.Clone(left), func(e endpoint) bool { return slices.Contains(failed, e) })
	}
	switch {
	case len(left) == 0:
		return endpoint{}, false
	case r.sticky:
		return slices.MaxFunc(left, func(a, b endpoint) int {
			return cmp.Compare(weight(seed, client, a), weight(seed, client, b))
		}), true
	}
	return left[rand.IntN(len(left))], true
}

// weight orders endpoints for one client (rendezvous hashing: when an endpoint goes, only its clients move).
func weight(seed maphash.Seed, client string, e endpoint) uint64 {
	return maphash.Comparable(seed, struct {
		client string
		e      endpoint
	}{client, e})
}
