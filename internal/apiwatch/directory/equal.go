package directory

import "slices"

func (s *Service) equal(r *Service) bool {
	return s.Name == r.Name && s.UID == r.UID && s.ExternalName == r.ExternalName &&
		slices.Equal(s.Families, r.Families) && slices.Equal(s.Ports, r.Ports) && slices.Equal(s.ClusterIPs, r.ClusterIPs) &&
		s.Affinity == r.Affinity && s.Cookie == r.Cookie && s.Backend == r.Backend
}

func (s *Slice) equal(r *Slice) bool {
	return s.Name == r.Name && s.Service == r.Service && s.Family == r.Family && slices.Equal(s.Ports, r.Ports) &&
		slices.EqualFunc(s.Endpoints, r.Endpoints, Endpoint.equal)
}

func (e Endpoint) equal(f Endpoint) bool {
	return e.Addr == f.Addr && e.Ready == f.Ready && e.Serving == f.Serving && e.Terminating == f.Terminating &&
		e.Node == f.Node && e.Zone == f.Zone && e.Pod == f.Pod &&
		slices.Equal(e.ForZones, f.ForZones)
}

func (p *Pod) equal(q *Pod) bool {
	return p.Name == q.Name && p.UID == q.UID && slices.Equal(p.Addrs, q.Addrs) &&
		p.Terminated == q.Terminated && slices.Equal(p.Ports, q.Ports) && p.Backend == q.Backend
}

func (n *Node) equal(m *Node) bool {
	return n.Name == m.Name && n.KubeletPort == m.KubeletPort && slices.Equal(n.Addrs, m.Addrs)
}
