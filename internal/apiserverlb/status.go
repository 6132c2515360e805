package apiserverlb

import (
	"fmt"
	"io"
	"maps"
	"net/netip"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"k8s.io/apimachinery/pkg/util/duration"

	"varco.dev/internal/observe"
)

// Status is what a balancer says of itself, for people and for programs.
type Status struct {
	Version     string          `json:"version"`
	Started     time.Time       `json:"started"`
	Draining    bool            `json:"draining"`
	Listeners   []ListenerState `json:"listeners"`
	Backends    []BackendState  `json:"backends"`
	Sources     []SourceState   `json:"sources"`
	Connections int             `json:"connections"` // that are open, in mode tcp
	// HTTPSConnections are those of mode https; the limit is for each of both.
	HTTPSConnections int            `json:"httpsConnections"`
	Limit            int            `json:"limit"`
	Accepted         uint64         `json:"accepted"`   // of mode tcp
	TurnedAway       uint64         `json:"turnedAway"` // because of a limit
	Retried          uint64         `json:"retried"`    // connections, or requests, that had to be tried at another backend
	Replayed         uint64         `json:"replayed"`   // had their hello sent to another backend
	Moved            map[string]int `json:"moved"`      // closed so that clients come back elsewhere, by reason
}

// ListenerState is a listener.
type ListenerState struct {
	Name    string `json:"name"`
	Address string `json:"address"`
	Mode    string `json:"mode"`
}

// BackendState is a backend.
type BackendState struct {
	Address     string    `json:"address"`
	Zone        string    `json:"zone,omitempty"`
	Source      string    `json:"source"` // empty: found no more
	State       string    `json:"state"`
	Since       time.Time `json:"since"`
	FailOpen    bool      `json:"failOpen"`
	Usable      bool      `json:"usable"` // new connections may go to it
	Reason      string    `json:"reason"`
	LatencyMS   float64   `json:"latencyMilliseconds"` // of the last check
	Connections int       `json:"connections"`         // of mode tcp
	Requests    int       `json:"requests"`            // that are being passed on, of mode https
	Received    uint64    `json:"receivedBytes"`       // from it
	Sent        uint64    `json:"sentBytes"`
}

// SourceState is where backends are found.
type SourceState struct {
	Name      string `json:"name"`
	Addresses int    `json:"addresses"`
	Error     string `json:"error,omitempty"`
}

// Status returns how things are.
func (lb *LB) Status() Status {
	s := lb.relay.Stats()
	out := Status{
		Version: lb.config.Version, Started: lb.started, Draining: lb.draining.Load(), Listeners: lb.listeners.states(),
		Connections: s.Open, Limit: int(lb.limit.Load()), Accepted: s.Accepted, TurnedAway: s.OverLimit + s.OverSource,
		Retried: s.Retried, Replayed: s.Replayed, Moved: map[string]int{}, Backends: []BackendState{}, Sources: []SourceState{},
	}
	if lb.https != nil {
		q := lb.https.Stats()
		out.HTTPSConnections = q.Connections
		out.TurnedAway += uint64(q.Refused + q.Crowded)
		out.Retried += uint64(q.Unsent + q.Idempotent + q.TurnedAway)
	}
	for _, reason := range movedReasons() {
		out.Moved[reason] = lb.closed.of(reason)
	}
	for _, b := range *lb.backends.Load() {
		out.Backends = append(out.Backends, BackendState{
			Address: b.Addr.String(), Zone: b.Zone, Source: b.Source, State: b.State.String(), Since: b.Since, FailOpen: b.Open,
			Usable: b.takes(), Reason: b.Reason, LatencyMS: float64(b.Latency.Microseconds()) / 1000,
			Connections: b.Traffic.Sessions, Requests: b.Requests.Requests, Received: b.Traffic.Out, Sent: b.Traffic.In,
		})
	}
	if d := lb.discovery.Load(); d != nil {
		for _, from := range d.Sources() {
			state := SourceState{Name: from.Name, Addresses: len(from.Addrs)}
			switch {
			case from.Err != nil:
				state.Error = from.Err.Error()
			case from.Answered.IsZero():
				state.Error = "it has not answered yet"
			}
			out.Sources = append(out.Sources, state)
		}
	}
	return out
}

// Backends returns the addresses of all backends.
func (lb *LB) Backends() (out []netip.AddrPort) {
	for _, b := range *lb.backends.Load() {
		out = append(out, b.Addr)
	}
	return out
}

// WriteTable writes a status for people, as of now.
func WriteTable(w io.Writer, s Status, now time.Time) error {
	out := &strings.Builder{}
	fmt.Fprintf(out, "apiserver-lb %s, up for %s, %d of %d connections", s.Version, duration.HumanDuration(now.Sub(s.Started)), s.Connections, s.Limit)
	if s.HTTPSConnections > 0 {
		fmt.Fprintf(out, ", and %d of mode https", s.HTTPSConnections)
	}
	if s.Draining {
		out.WriteString(", ending")
	}
	out.WriteString("\n")
	for _, l := range s.Listeners {
		fmt.Fprintf(out, "listens at %s (%s)\n", l.Address, l.Mode)
	}
	for _, from := range s.Sources {
		fmt.Fprintf(out, "backends from %s: %d", from.Name, from.Addresses)
		if from.Error != "" {
			fmt.Fprintf(out, ", last error: %s", from.Error)
		}
		out.WriteString("\n")
	}
	fmt.Fprintf(out, "accepted %d, turned away %d, tried at another backend %d, hellos replayed %d", s.Accepted, s.TurnedAway, s.Retried, s.Replayed)
	for _, reason := range slices.Sorted(maps.Keys(s.Moved)) {
		fmt.Fprintf(out, ", moved (%s) %d", reason, s.Moved[reason])
	}
	out.WriteString("\n\n")
	writeBackends(out, s.Backends, now)
	_, err := io.WriteString(w, out.String())
	return err
}

func writeBackends(w io.Writer, backends []BackendState, now time.Time) {
	table := tabwriter.NewWriter(w, 0, 0, 2, ' ', 0)
	defer table.Flush()
	fmt.Fprintln(table, "BACKEND\tZONE\tFROM\tSTATE\tFOR\tCONNECTIONS\tREQUESTS\tRECEIVED\tSENT\tCHECK\tWHY")
	for _, b := range backends {
		state := b.State
		if b.FailOpen {
			state += " (used)"
		}
		fmt.Fprintf(table, "%s\t%s\t%s\t%s\t%s\t%d\t%d\t%s\t%s\t%.1f ms\t%s\n", b.Address, orDash(b.Zone), orDash(b.Source), state,
			duration.HumanDuration(now.Sub(b.Since)), b.Connections, b.Requests, observe.Size(b.Received), observe.Size(b.Sent), b.LatencyMS, b.Reason)
	}
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}
