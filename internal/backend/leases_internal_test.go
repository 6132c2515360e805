package backend

import "net/netip"

// Leases returns how many leases of each target are not done.
func (p *Pool) Leases() map[netip.AddrPort]int {
	p.mu.Lock()
	defer p.mu.Unlock()
	out := make(map[netip.AddrPort]int, len(p.targets))
	for addr, t := range p.targets {
		out[addr] = t.inFlight
	}
	return out
}
