package apiserverproxy

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
)

// Groups of measures, as --measures names them.
const (
	groupSocket = "socket" // memory of idle WebSockets
	groupPage   = "page"   // a large HTML page, and one that comes in parts
	groupGet    = "get"    // small requests, and which endpoints they went to
	groupDead   = "dead"   // small requests while an endpoint is gone
	groupPace   = "pace"   // latency at loads that the peer can carry
	groupFlow   = "flow"   // processor time at a steady rate of bytes
)

// groups are all groups, in the order in which they are measured.
var groups = []string{groupSocket, groupPage, groupGet, groupDead, groupPace, groupFlow}

// visits are the groups that are measured one after the other in the same processes: what is to show in their memory comes
// first in each.
var visits = [][]string{{groupSocket}, {groupPage, groupGet, groupDead, groupPace, groupFlow}}

// Names of the measures in the samples.
const (
	socketKiB     = "memory of an idle WebSocket, KiB"
	socketUsedKiB = "heap and stacks of an idle WebSocket, KiB"
	idleMiB       = "resident memory after the first answer, MiB"

	pageRate    = "HTML page, MiB/s"
	pageHeapMiB = "extra live heap for the page, MiB"
	pageMiB     = "extra resident memory for the page, MiB"
	firstMillis = "first byte of a page in parts, ms"
	wholeMillis = "last byte of a page in parts, ms"

	getRate     = "small GETs per second"
	getCPU      = "CPU per GET, µs"
	getP50      = "GET p50, ms"
	getP99      = "GET p99, ms"
	spread      = "largest share of an endpoint by the smallest"
	tokenRate   = "small GETs with a token per second"
	deadFailed  = "failed GETs while one of ten endpoints is gone, %"
	deadRate    = "answered GETs per second while one of ten endpoints is gone"
	deadP99     = "answered GET p99 while one of ten endpoints is gone, ms"
	pacePerSec  = "paced GETs per second"
	paceP50     = "paced GET p50, ms"
	paceP99     = "paced GET p99, ms"
	flowRate    = "flow, Mbit/s"
	flowCPU     = "CPU of all while it flows, % of a processor"
	flowAPI     = "CPU of kube-apiserver while it flows, % of a processor"
	flowFront   = "CPU of the front while it flows, % of a processor"
	flowSeconds = "CPU of all for a GB, s"
)

// of names a measure of one of the processes.
func of(measure, process string) string { return measure + ", " + process }

// Sizes that the bars are for, and one, the size of what is not measured at several.
const (
	mainConnections = 64
	mainLoad        = 50
	mainSockets     = 1000
	mainPage        = 200
	mainFlow        = 1000
	one             = 1
)

// Plan says what to measure.
type Plan struct {
	// Rounds is how often each contender starts anew to be measured; their order changes from round to round.
	Rounds int
	// Groups of measures; all if empty.
	Groups []string
	// Connections are the numbers of connections for small requests, ascending; GetTime is how long each is measured.
	Connections []int
	GetTime     time.Duration
	// Warm is how long requests go on before they are counted.
	Warm time.Duration
	// Loads are percentages, ascending, of what the peer answers on mainConnections; PaceTime is how long each is measured.
	Loads    []int
	PaceTime time.Duration
	// Sockets is how many WebSockets are idle at a time.
	Sockets int
	// PageMiB is the length of a large page; Gap is between the parts of another.
	PageMiB int
	Gap     time.Duration
	// PageTime is how long pages of a MiB go before it.
	PageTime time.Duration
	// Flows are Mbit/s, ascending; FlowTime is how long each of them flows.
	Flows    []int
	FlowTime time.Duration
	// Settle is between the start of a process, or of idle WebSockets, and what is measured.
	Settle time.Duration
}

// fullPlan is what the published figures are of, and quickPlan a smoke run.
func fullPlan() Plan {
	return Plan{Rounds: 5, Connections: []int{1, 16, mainConnections}, GetTime: 3 * time.Second, Warm: 500 * time.Millisecond,
		Loads: []int{25, mainLoad, 75}, PaceTime: 4 * time.Second, Sockets: mainSockets, PageMiB: mainPage, PageTime: time.Second, Gap: time.Second,
		Flows: []int{250, 500, mainFlow}, FlowTime: 3 * time.Second, Settle: 3 * time.Second}
}

func quickPlan() Plan {
	return Plan{Rounds: 1, Connections: []int{mainConnections}, GetTime: time.Second, Warm: 500 * time.Millisecond,
		Loads: []int{mainLoad}, PaceTime: 2 * time.Second, Sockets: mainSockets, PageMiB: mainPage, PageTime: time.Second, Gap: time.Second,
		Flows: []int{mainFlow}, FlowTime: 2 * time.Second, Settle: 2 * time.Second}
}

// Limits of a plan.
const (
	maxConnections = 1000
	maxSockets     = 10000
	maxLoad        = 95
	leastTime      = 100 * time.Millisecond
)

// check tells of a plan that cannot be carried out.
func (p Plan) check() error {
	for _, g := range p.Groups {
		if !slices.Contains(groups, g) {
			return fmt.Errorf("measures %q: want some of %s", g, strings.Join(groups, ", "))
		}
	}
	switch {
	case !ascending(p.Connections, maxConnections):
		return fmt.Errorf("connections %v: want numbers from 1 to %d, ascending", p.Connections, maxConnections)
	case !ascending(p.Loads, maxLoad):
		return fmt.Errorf("loads %v: want percentages from 1 to %d, ascending", p.Loads, maxLoad)
	case !ascending(p.Flows, 100000):
		return fmt.Errorf("flows %v: want Mbit/s, ascending", p.Flows)
	case p.Sockets < 1 || p.Sockets > maxSockets:
		return fmt.Errorf("%d WebSockets: want 1 to %d", p.Sockets, maxSockets)
	case p.Rounds < 1 || p.PageMiB < 1:
		return errors.New("rounds and MiB of a page: want one of each at least")
	case min(p.GetTime, p.PaceTime, p.FlowTime) < leastTime || min(p.Warm, p.Gap, p.PageTime, p.Settle) < 0:
		return fmt.Errorf("times of a measure: want %s at least", leastTime)
	}
	return nil
}

func ascending(list []int, most int) bool {
	return len(list) > 0 && slices.IsSorted(list) && list[0] > 0 && list[len(list)-1] <= most
}

// wants says whether a group is measured.
func (p Plan) wants(group string) bool { return len(p.Groups) == 0 || slices.Contains(p.Groups, group) }
