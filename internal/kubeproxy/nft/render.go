package nft

import (
	"slices"
	"time"

	"varco.dev/internal/service"
)

// Render returns all elements that make up a Port, given its number and the slots that its backends have. It is pure.
// count tells which counters the frontends have.
func Render(p *service.Port, number uint32, slots Slots, count Counters) []Element {
	return render(p, nil, number, slots, Slots{}, count)
}

// render leaves out what stands in the same slot of another version of the Port, because rendering all of a big Service for
// a change of one backend would cost more than the change.
func render(p, other *service.Port, number uint32, slots, skip Slots, count Counters) []Element {
	if p == nil || len(p.Frontends) == 0 {
		return nil
	}
	r := renderer{port: p, number: number, count: count, family: p.Key.Family}
	if other == nil || len(other.Frontends) == 0 || (p.Affinity > 0) != (other.Affinity > 0) {
		skip = Slots{}
	}
	for _, f := range p.Frontends {
		r.frontend(f, slots)
	}
	r.backends(clusterID(number), p.Cluster)
	r.backends(localID(number), p.Local)
	r.slots(clusterID(number), slots.Cluster, skip.Cluster)
	r.slots(localID(number), slots.Local, skip.Local)
	return r.elements
}

type renderer struct {
	port     *service.Port
	number   uint32
	count    Counters
	family   service.Family
	elements []Element
}

func (r *renderer) add(s Set, key, value encoder) {
	r.elements = append(r.elements, Element{Place{r.family, s, string(key)}, string(value)})
}

// frontend renders what the clients of a frontend meet: a class that leads to backends, or a refusal.
func (r *renderer) frontend(f service.Frontend, slots Slots) {
	policy, s := r.port.PolicyOf(f.Kind), setsOf(f.Kind)
	key := r.key(f)
	here, id := slots.Cluster, clusterID(r.number)
	if policy == service.PolicyLocal {
		here, id = slots.Local, localID(r.number)
	}
	switch {
	case f.Kind != service.ClusterIP && policy == service.PolicyLocal && len(slots.Cluster) > 0:
		r.point(s.frontends, key, s.local, here, id)
		r.point(s.shortcuts, key, s.shortcut, slots.Cluster, clusterID(r.number))
	case len(here) > 0:
		r.point(s.frontends, key, s.path, here, id)
	}
	if len(here) == 0 {
		r.refuse(s.refusals, key)
	}
	if f.Kind == service.ClusterIP {
		r.add(ClusterIPs, encoder{}.addr(f.Addr.Addr()), nil)
	}
	if f.Kind == service.LoadBalancerIP && r.port.Sources != nil {
		r.add(Firewalled, key, nil)
		r.sources(key)
	}
	if r.count >= CountConnections {
		r.add(s.connections, key, nil)
	}
	if r.count >= CountAll {
		r.add(s.traffic, key, nil)
	}
}

// kindSets are the sets that a kind of frontend is in, and the paths that lead from it.
type kindSets struct {
	frontends, shortcuts, refusals, connections, traffic Set
	path, local, shortcut                                Path
}

func setsOf(k service.Kind) kindSets {
	s := kindSets{Services, Shortcuts, NoEndpoints, Connections, Traffic, PathExternal, PathExternalLocal, PathExternalShortcut}
	switch k {
	case service.ClusterIP: // for which policy Local has no shortcuts
		s.path = PathCluster
	case service.NodePort:
		s = kindSets{NodePorts, NodePortShortcuts, NoEndpointNodePorts, NodePortConnections, NodePortTraffic,
			PathNodePort, PathNodePortLocal, PathNodePortShortcut}
	}
	return s
}

// key returns what a frontend is found by.
func (r *renderer) key(f service.Frontend) encoder { return frontendKey(r.port.Key, f) }

func frontendKey(k service.Key, f service.Frontend) encoder {
	var key encoder
	if f.Kind != service.NodePort {
		key = key.addr(f.Addr.Addr())
	}
	return key.proto(k.Protocol).port(f.Addr.Port())
}

// point renders the way from a frontend to a set of backends.
func (r *renderer) point(s Set, key encoder, path Path, slots []service.Backend, id uint32) {
	class := Class{Path: path, Protocol: r.port.Key.Protocol}
	if len(slots) > 0 {
		class.Backends, class.Balance, class.Affinity = len(slots), r.port.Balance, seconds(r.port.Affinity)
	}
	if class.Balance == service.Maglev {
		class.Backends = 1
	}
	r.add(s, key, encoder{}.number(uint32(class.Backends)).class(class).number(id))
}

// seconds returns an affinity as a class has it; less than a second is one.
func seconds(d time.Duration) uint32 {
	return uint32(min((d+time.Second-1)/time.Second, MaxAffinity))
}

func (r *renderer) refuse(s Set, key encoder) {
	why := RefuseEmpty
	if r.port.HasEndpoints {
		why = RefuseLocal
	}
	r.add(s, key, encoder{}.number(0).number(uint32(why)))
}

// backends renders what is there once for each backend of a set.
func (r *renderer) backends(id uint32, backends []service.Backend) {
	proto := r.port.Key.Protocol
	for _, b := range backends {
		ip, port := b.Addr.Addr(), b.Addr.Port()
		if r.port.Affinity > 0 {
			r.add(Backends, encoder{}.number(id).token(hashOf(b.Addr)), encoder{}.addr(ip).port(port))
		}
		if b.Local {
			r.add(Hairpins, encoder{}.addr(ip).addr(ip).proto(proto).port(port), nil)
		}
	}
}

func (r *renderer) slots(id uint32, slots, skip []service.Backend) {
	for i, b := range slots {
		if i < len(skip) && skip[i].Addr == b.Addr {
			continue
		}
		key := encoder{}.number(id).number(uint32(i))
		r.add(Endpoints, key, encoder{}.addr(b.Addr.Addr()).port(b.Addr.Port()))
		if r.port.Affinity > 0 {
			r.add(Tokens, key, encoder{}.number(0).token(hashOf(b.Addr)))
		}
	}
}

// sources renders the networks that may reach a load-balancer IP. A network of the other family is of no concern here.
func (r *renderer) sources(frontend encoder) {
	for i, p := range r.port.Sources {
		p = p.Masked()
		if service.FamilyOf(p.Addr()) == r.family && !slices.Contains(r.port.Sources[:i], p) {
			key := append(slices.Clone(frontend), encoder{}.number(uint32(p.Bits())).addr(p.Addr())...)
			r.add(Sources, key, nil)
		}
	}
}
