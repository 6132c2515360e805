package nft

import (
	"net/netip"

	"varco.dev/internal/service"
)

// Render returns the elements that make up a Port, given the id that its backends are stored under and the order of the
// slots that they have. It is pure. Backends beyond MaxBackends are left out.
func Render(p *service.Port, number uint32, slots []service.Backend) []Element {
	if len(p.Frontends) == 0 {
		return nil
	}
	slots = slots[:min(len(slots), MaxBackends)]
	r := renderer{family: p.Key.Family}
	for _, f := range p.Frontends {
		r.frontend(f, p.Key.Protocol, len(slots), number)
	}
	for i, b := range slots {
		r.backend(b, p.Key.Protocol, number, uint32(i))
	}
	return r.elements
}

// RenderNode returns the elements for the addresses at which NodePorts are served. It is pure.
func RenderNode(addrs []netip.Addr) []Element {
	var out []Element
	for _, a := range addrs {
		r := renderer{family: service.FamilyOf(a)}
		r.add(NodeAddrs, encoder{}.addr(a), nil)
		out = append(out, r.elements...)
	}
	return out
}

type renderer struct {
	family   service.Family
	elements []Element
}

func (r *renderer) add(s Set, key, value encoder) {
	r.elements = append(r.elements, Element{Place{r.family, s, string(key)}, string(value)})
}

func (r *renderer) frontend(f service.Frontend, proto service.Protocol, backends int, number uint32) {
	set, path := Services, PathExternal
	var key encoder
	switch f.Kind {
	case service.NodePort:
		set, path = NodePorts, PathNodePort
	case service.ClusterIP:
		path = PathCluster
		fallthrough
	default:
		key = key.addr(f.Addr.Addr())
	}
	value := encoder{}.number(uint32(backends)).number(uint32(ClassOf(path, proto, backends))).number(number)
	r.add(set, key.proto(proto).port(f.Addr.Port()), value)
}

func (r *renderer) backend(b service.Backend, proto service.Protocol, number, slot uint32) {
	ip, port := b.Addr.Addr(), b.Addr.Port()
	r.add(Endpoints, encoder{}.number(number).number(slot), encoder{}.addr(ip).port(port))
	if b.Local {
		r.add(Hairpins, encoder{}.addr(ip).addr(ip).proto(proto).port(port), nil)
	}
}
