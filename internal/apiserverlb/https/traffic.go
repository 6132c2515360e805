package https

import (
	"net/netip"

	"varco.dev/internal/httpproxy/vouch"
)

// Traffic is what goes on with a backend.
type Traffic struct {
	Requests int // that are being passed on, watches and upgraded connections included
	Watches  int // of them: what Shed may end
}

// Traffic returns what goes on with each backend that a request is on its way to.
func (s *Server) Traffic() map[netip.AddrPort]Traffic { return s.flights.traffic() }

func (f *flights) traffic() map[netip.AddrPort]Traffic {
	f.mu.Lock()
	defer f.mu.Unlock()
	out := make(map[netip.AddrPort]Traffic, len(f.open))
	for addr, open := range f.open {
		t := Traffic{Requests: len(open)}
		for a := range open {
			if a.kind == vouch.Watching {
				t.Watches++
			}
		}
		out[addr] = t
	}
	return out
}
