package health

import (
	"net/netip"
	"time"
)

// State is what becomes of connections to a backend.
type State uint8

// The states.
const (
	Up       State = iota // new connections may go to it
	Draining              // it is alive, and should get no new ones; those that it has may stay
	Down                  // it does not answer
)

// String returns the state's name.
func (s State) String() string { return [...]string{"Up", "Draining", "Down"}[s] }

// Result is what came of one try to reach a backend.
type Result uint8

// The results. What is alive has answered in some way; what is not may be the fault of the way to it.
const (
	Unknown     Result = iota // nothing came of it, by our own fault: neither for nor against the backend
	Ready                     // 200
	Alive                     // 401, 403, or it wants another client certificate: alive; its readiness is not for us to see
	Red                       // any other status, or no TLS: alive, and not ready
	Slow                      // the TLS handshake succeeds, the answer is late: alive, and not ready
	Untrusted                 // its certificate is expired or not of our CA: clients refuse it as well
	Late                      // no answer in time on a connection that stood: what follows on a new one decides
	Hung                      // no TLS handshake in time, or a session got no first byte (silent)
	Broken                    // the connection was closed before the first byte
	Unreachable               // no route, or no answer to a SYN
	Refused                   // nobody listens there (ECONNREFUSED)
)

// String returns the result in a word.
func (r Result) String() string {
	return [...]string{"unknown", "ready", "alive", "red", "slow", "untrusted", "late", "hung", "broken", "unreachable", "refused"}[r]
}

// Verdict is what is to be done about a backend.
type Verdict struct {
	Addr  netip.AddrPort
	State State
	Since time.Time // when the state began
	// Proven tells that it was seen ready since it came into the set. One that is Up and not proven is so for want of knowledge,
	// and is better picked after those that are.
	Proven bool
	// Open tells that it is to be used as if it were Up, since there is nothing better or too many turned red together.
	Open bool
	// Cut tells that its sessions are to be ended at once: it will not answer them, and another one has answered and is usable.
	Cut     bool
	Last    Result        // of the newest probe or report
	Reason  string        // of the state, for people
	Latency time.Duration // of the newest answer; 0: there was none yet
}

// Usable tells whether new connections may go to it.
func (v Verdict) Usable() bool { return v.State == Up || v.Open }
