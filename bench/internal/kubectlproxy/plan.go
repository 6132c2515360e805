package kubectlproxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Groups of measures, as --measures names them.
const (
	groupBody  = "body"  // large bodies, and the memory that they take
	groupGet   = "get"   // small requests
	groupWatch = "watch" // events of many watches
	groupStart = "start" // from nothing to the first answer
)

// groups are all groups, in the order in which they are measured: bodies first, in a process that has served nothing else,
// whose memory therefore shows all that they take.
var groups = []string{groupBody, groupGet, groupWatch, groupStart}

// Names of the measures in the samples.
const (
	getRate       = "small GETs per second"
	getCPU        = "CPU of the proxy per GET, µs"
	getBackendCPU = "CPU of the server per GET, µs"
	getP50        = "GET p50, ms"
	getP99        = "GET p99, ms"

	bodyRate   = "body of known length, MiB/s"
	chunkRate  = "chunked body, MiB/s"
	uploadRate = "upload, MiB/s"
	idleMiB    = "resident memory after the first answer, MiB"
	bodyMiB    = "extra memory for the body of known length, MiB"
	chunkMiB   = "extra memory for the chunked body, MiB"
	uploadMiB  = "extra memory for the upload, MiB"
	bodyCPU    = "CPU of the proxy for the body of known length, s"

	startMillis = "start to first answer, ms"
)

// The measures of watches, each of them for events at times of their own and for events at the same time.
const (
	viaP50    = "event p50, ms"
	viaP99    = "event p99, ms"
	directP50 = "event directly p50, ms"
	directP99 = "event directly p99, ms"
	addedP50  = "what the proxy adds p50, ms"
	addedP99  = "what the proxy adds p99, ms"
	eventRate = "events per second of all watches"
	eventCPU  = "CPU of the proxy per event, µs"
	watchMiB  = "resident memory with all watches, MiB"
)

// together is how the measures of events at the same time are named.
func together(measure string) string { return measure + ", all at once" }

// Sizes that the bars are for.
const (
	mainConnections = 32
	mainWatches     = 200
	mainBody        = 1 << 30
	// one is the size of what is not measured at several.
	one = 1
)

// eventsPerSecond of each watch.
const eventsPerSecond = 20

// Plan says what to measure.
type Plan struct {
	// Rounds is how often each contender starts anew to be measured; their order changes from round to round.
	Rounds int
	// Groups of measures; all if empty.
	Groups []string
	// Connections are the numbers of connections for small requests, ascending; GetTime is how long each is measured.
	Connections []int
	GetTime     time.Duration
	// Warm is how long requests and events go on before they are counted.
	Warm time.Duration
	// Watches is how many there are at a time; WatchTime is how long events are counted.
	Watches   int
	WatchTime time.Duration
	// BodyMiB is the length of a large body.
	BodyMiB int
	// Starts to the first answer, in each round.
	Starts int
}

// fullPlan is what the published figures are of, and quickPlan a smoke run.
func fullPlan() Plan {
	return Plan{Rounds: 5, Connections: []int{1, 8, mainConnections, 128}, GetTime: 3 * time.Second, Watches: mainWatches,
		WatchTime: 3 * time.Second, Warm: 500 * time.Millisecond, BodyMiB: mainBody >> 20, Starts: 3}
}

func quickPlan() Plan {
	return Plan{Rounds: 1, Connections: []int{mainConnections}, GetTime: time.Second, Watches: mainWatches,
		WatchTime: time.Second, Warm: 500 * time.Millisecond, BodyMiB: 256, Starts: 2}
}

// Limits of a plan.
const (
	maxConnections = 1000
	maxWatches     = 1000
	leastTime      = 100 * time.Millisecond
)

// check tells of a plan that cannot be carried out.
func (p Plan) check() error {
	for _, g := range p.Groups {
		if !slices.Contains(groups, g) {
			return fmt.Errorf("measures %q: want some of %s", g, strings.Join(groups, ", "))
		}
	}
	for _, n := range p.Connections {
		if n < 1 || n > maxConnections {
			return fmt.Errorf("%d connections: want 1 to %d", n, maxConnections)
		}
	}
	switch {
	case len(p.Connections) == 0 || !slices.IsSorted(p.Connections):
		return fmt.Errorf("connections %v: want one number at least, ascending", p.Connections)
	case p.Watches < 1 || p.Watches > maxWatches:
		return fmt.Errorf("%d watches: want 1 to %d", p.Watches, maxWatches)
	case p.Rounds < 1 || p.BodyMiB < 1 || p.Starts < 1:
		return errors.New("rounds, MiB of a body and starts: want one of each at least")
	case p.GetTime < leastTime || p.WatchTime < leastTime || p.Warm < 0:
		return fmt.Errorf("times of a measure: want %s at least", leastTime)
	}
	return nil
}

// wants says whether a group is measured.
func (p Plan) wants(group string) bool { return len(p.Groups) == 0 || slices.Contains(p.Groups, group) }
