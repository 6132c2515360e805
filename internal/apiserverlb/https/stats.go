package https

// Stats is a server at one moment. All but the first four grow.
type Stats struct {
	Connections int // of clients
	Opened      int // connections to backends
	Requests    int // that are passed on, upgrades included
	Upgrades    int

	Refused    int64 // connections, by Limits.Connections
	Crowded    int64 // by Limits.PerSource
	Misread    int64 // for want of a header of the PROXY protocol
	Vanished   int64 // clients that have left bytes unacknowledged
	Unsent     int64 // requests that were sent to another backend since nothing of them was sent
	Idempotent int64 // since the backend broke before it answered
	TurnedAway int64 // since it answered 429
	Shed       int64 // watches that were ended by Shed
	Lost       int64 // requests that were ended by End
}

// Stats counts.
func (s *Server) Stats() Stats {
	requests, upgrades := s.proxy.Open()
	return Stats{
		Connections: s.crowd.count(), Opened: s.flights.count(), Requests: requests, Upgrades: upgrades,
		Refused: s.crowd.refused.Load(), Crowded: s.crowd.crowded.Load(), Misread: s.crowd.misread.Load(), Vanished: s.crowd.vanished.Load(),
		Unsent: s.spread.retries[unsent].Load(), Idempotent: s.spread.retries[idempotent].Load(), TurnedAway: s.spread.retries[turnedAway].Load(),
		Shed: s.flights.shed.Load(), Lost: s.flights.lost.Load(),
	}
}
