package loop

import (
	"log/slog"
	"net"
	"net/netip"
	"time"
)

// Defaults of Limits and Timing.
const (
	DefaultConnections = 20000
	DefaultConnect     = 2 * time.Second // a SYN is sent again after 1 s
	DefaultHello       = time.Second
	DefaultOpening     = 10 * time.Second
	DefaultKeepAlive   = 3 * time.Second
	DefaultUserTimeout = 5 * time.Second
	DefaultHalfClosed  = 5 * time.Minute // HAProxy: timeout client-fin
	DefaultLinger      = 500 * time.Millisecond
	DefaultTries       = 6 // backends for one client, within Timing.Opening
)

// Config is what a Relay wants to know.
type Config struct {
	// Workers is how many event loops there are; default: runtime.GOMAXPROCS(0). They take less CPU if there are fewer than
	// that, so that the rest of the process has one P for itself.
	Workers  int
	Balancer Balancer // required
	Limits   Limits
	Timing   Timing
	Log      *slog.Logger // required
}

// Limits bound the connections. One beyond them is reset at once and counted; the log tells of it once a minute.
type Limits struct {
	Connections int // of clients at a time; 0: DefaultConnections
	PerSource   int // of one IPv4 address or IPv6 /64 at a time; 0: no limit
}

// Timing is how long things may take. A zero means the default.
type Timing struct {
	Connect     time.Duration // one attempt to reach a backend
	Hello       time.Duration // from the client's whole ClientHello to the backend's first byte
	Opening     time.Duration // until the first byte of either side; of a PROXY header and a ClientHello, until the last
	KeepAlive   time.Duration // without bytes before the backend is probed, or up to twice that; clients: five times as long
	UserTimeout time.Duration // without an acknowledgement of what was sent before a peer counts as gone (TCP_USER_TIMEOUT)
	HalfClosed  time.Duration // without bytes in a session of which one side has said that no more will come
}

// Listener is where clients connect.
type Listener struct {
	Name string // unique among those of a Relay
	// Net is taken over: the relay closes it, and nobody else may use it any more.
	Net *net.TCPListener
	// ProxyFrom is from where a PROXY header (v1 or v2) is wanted. A peer of these that sends none is reset; what others
	// send is never taken for one.
	ProxyFrom []netip.Prefix
	ProxyTo   bool // backends get a PROXY header, v2
}

// Client is who connects.
type Client struct {
	Addr     netip.AddrPort // as the PROXY header says, else Peer
	Peer     netip.AddrPort // the other end of the connection
	Local    netip.AddrPort // where it arrived; the listener's own address, unless a PROXY header is read or written
	Listener string
}

// Balancer picks backends. Pick is called by the loops concurrently, and by none twice at a time. It must not block, and
// must not call the Relay's methods: the loop that asks would have to answer. Tried are the backends that this client has
// had without success; it may not be kept. False means that there is none (more).
type Balancer interface {
	Pick(c Client, tried []netip.AddrPort) (Attempt, bool)
}

// Attempt is one client's use of a backend.
type Attempt struct {
	Backend netip.AddrPort
	// Report is told what happens, in order; Ended is the last, and comes exactly once. It must not block and must not
	// call the Relay's methods. Optional.
	Report func(Event)
}

// Event is what happens to an Attempt.
type Event uint8

// What a backend does. Each is reported at most once for an Attempt.
const (
	Connected   Event = iota // the connection stands
	Answered                 // its first byte has come
	Refused                  // it refused the connection
	Unreachable              // it could not be reached: a timeout, no route…
	Silent                   // it did not answer the client's ClientHello within Timing.Hello
	Broken                   // it ended the connection instead of answering a ClientHello, or reset one that had said nothing
	Ended                    // the backend's connection is closed, or was never opened
)

var eventNames = [...]string{"connected", "answered", "refused", "unreachable", "silent", "broken", "ended"}

// String returns the name in lower case.
func (e Event) String() string {
	if int(e) < len(eventNames) {
		return eventNames[e]
	}
	return "unknown"
}

func orDefault[T int | time.Duration](v, d T) T {
	if v > 0 {
		return v
	}
	return d
}

func (l Limits) withDefaults() Limits {
	l.Connections = orDefault(l.Connections, DefaultConnections)
	return l
}

func (t Timing) withDefaults() Timing {
	return Timing{
		Connect:     orDefault(t.Connect, DefaultConnect),
		Hello:       orDefault(t.Hello, DefaultHello),
		Opening:     orDefault(t.Opening, DefaultOpening),
		KeepAlive:   orDefault(t.KeepAlive, DefaultKeepAlive),
		UserTimeout: orDefault(t.UserTimeout, DefaultUserTimeout),
		HalfClosed:  orDefault(t.HalfClosed, DefaultHalfClosed),
	}
}
