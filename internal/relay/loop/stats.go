package loop

import (
	"net/netip"
	"time"
)

// Reason is why a session ended.
type Reason uint8

// Reasons of an end.
const (
	Done          Reason = iota // both sides had said all
	ClientReset                 // the client's connection broke
	BackendReset                // the backend's connection broke
	NoBackend                   // there was no backend, or none could be reached
	BadHeader                   // the PROXY header that was wanted is none
	OpeningSlow                 // not a byte within Timing.Opening, or no whole PROXY header or ClientHello
	HalfClosedOld               // no byte within Timing.HalfClosed
	EndedByCaller               // End
	ShedByCaller                // Shed
	Stopped                     // Run's context ended
	Vanished                    // the peer acknowledges nothing any more
	OverSource                  // Limits.PerSource
	Failed                      // the kernel refused something: too many files, most likely
	reasons                     // how many there are
)

var reasonNames = [reasons]string{"done", "client reset", "backend reset", "no backend", "bad header", "opening slow",
	"half-closed", "ended", "shed", "stopped", "vanished", "over source", "failed"}

// String returns the reason as a metric's label.
func (r Reason) String() string {
	if r < reasons {
		return reasonNames[r]
	}
	return "unknown"
}

// Stats count since New.
type Stats struct {
	Accepted      uint64 // connections of clients, those beyond the limits included
	OverLimit     uint64 // reset because of Limits.Connections
	OverSource    uint64 // reset because of Limits.PerSource
	AcceptErrors  uint64
	Retried       uint64 // attempts after one that failed to connect
	Replayed      uint64 // attempts to which the client's first flight was sent again
	HelloTimeouts uint64 // backends that were Silent
	Spliced       uint64 // bytes that did not pass through the process
	Open          int    // sessions now
	In, Out       uint64 // bytes from clients to backends, and back
	Ended         map[Reason]uint64
}

// Traffic is what goes to and from one backend.
type Traffic struct {
	Sessions int       // now, those that are connecting included
	LastByte time.Time // when a byte last came from it; zero: never
	In, Out  uint64    // bytes to and from it
}

// Session is one of those that there are.
type Session struct {
	Client, Backend netip.AddrPort
	Listener        string
	State           string // header, connecting, opening, relaying, ending
	Since           time.Time
	Idle            time.Duration // since the last byte of either side
	In, Out         uint64        // bytes from and to the client
}

// Shed says which sessions are to end in order.
type Shed struct {
	Backend netip.AddrPort
	Most    int // how many
	// Age is for how long a session must have been there. client-go lists all over again if a watch ends within a second.
	Age time.Duration
	// Quiet is for how long neither side has sent a byte; 0: this makes none eligible.
	Quiet time.Duration
	// Settled is how long ago the last byte came, if it came from the backend: no request waits for an answer then, most
	// likely; 0: this makes none eligible.
	Settled time.Duration
	// Listening is for how long the client has said nothing, while the backend has spoken, and not just now: a watch with
	// many events; 0: this makes none eligible.
	Listening time.Duration
}
