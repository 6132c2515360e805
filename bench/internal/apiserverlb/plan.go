package apiserverlb

import (
	"fmt"
	"slices"
	"strings"
	"time"
)

// Groups of measures, as --measures names them.
const (
	groupIdle    = "idle"    // memory and descriptors of idle connections
	groupGet     = "get"     // small requests over kept connections
	groupConnect = "connect" // new connections
	groupBulk    = "bulk"    // processor time of many bytes
	groupHung    = "hung"    // an API server is stopped by SIGSTOP
	groupCut     = "cut"     // the cable of an API server is cut
	groupRoll    = "roll"    // API servers restart one after the other, and what comes after
	groupRed     = "red"     // etcd is stopped by SIGSTOP: no API server is ready
)

// visits are the groups that are measured one after the other in the same processes. Memory comes before all else.
var (
	visits = [][]string{{groupIdle}, {groupGet, groupConnect, groupBulk}}
	// In the first of them no balancer has a reason to move connections.
	faults = []string{groupRed, groupHung, groupCut, groupRoll}
	groups = append(slices.Concat(visits...), faults...)
)

// Names of the measures in the samples.
const (
	idleKiB = "memory of an idle connection, KiB"
	idleFDs = "descriptors of an idle connection"
	bareMiB = "resident memory before the first connection, MiB"

	getRate = "small requests per second"
	getCPU  = "CPU of the balancer for a request, µs"
	getP50  = "request p50, ms"
	getP99  = "request p99, ms"

	connectRate = "new connections per second"
	connectCPU  = "CPU of the balancer for a connection, µs"
	connectP50  = "new connection p50, ms"
	connectP99  = "new connection p99, ms"

	bulkCPU  = "CPU of the balancer for a GiB, s"
	bulkRate = "bulk, Gbit/s"

	rollFailed  = "failed requests in a rolling restart"
	rollFinal   = "failed requests in a rolling restart that client-go does not repeat"
	rollCount   = "requests in a rolling restart"
	rollLongest = "longest request in a rolling restart, ms"
	spreadTime  = "time to an even spread, s"
	spreadEnds  = "closed connections while spreading, % a second"
	spreadLast  = "spread at the end, %"
	redFailed   = "failed new connections while all are red, %"
	redEnded    = "watches that ended while all are red, %"
)

// Measures of a fault of one API server, of which there are several kinds.
const (
	moved     = "time until its watches have moved on, s"
	failed    = "failed new connections, %"
	failedFor = "time in which new connections fail, s"
)

// when names a measure of a kind of fault.
func when(fault, measure string) string { return fault + ": " + measure }

// Sizes that the bars are for, and one, the size of what is not measured at several.
const (
	fewConnections  = 32
	manyConnections = 256
	lanes           = 32
	mainIdle        = 8000
	oneBulk         = 1
	someBulk        = 8
	one             = 1
)

// Plan says what to measure.
type Plan struct {
	// Rounds is how often each contender starts anew to be measured; Passes is how often, in each, speed is measured, in an
	// order that changes.
	Rounds, Passes int
	// Groups of measures; all if empty.
	Groups []string
	// Connections are the numbers of kept connections for small requests, ascending.
	Connections []int
	// Time is how long requests, and new connections, are counted; Warm is how long they go on before.
	Time, Warm time.Duration
	// Bulks are numbers of connections for bulk, ascending; BulkMiB is how much goes through all of them.
	Bulks   []int
	BulkMiB int
	// Idle is how many connections are idle at a time.
	Idle int
	// Settle is between the start of a process, or of idle connections, and what is measured.
	Settle time.Duration

	// Watches, Requests a second and Probes (new connections) a second go through each balancer while API servers fail.
	Watches, Requests, Probes int
	// FaultTime is how long an API server that hangs, or is cut off, is looked at; RedTime is how long etcd is stopped.
	FaultTime, RedTime time.Duration
	// Delay is how long an API server that is to end serves on, not ready.
	Delay time.Duration
	// SpreadLeast is how long connections are looked at after a rolling restart, SpreadMost is how long they are if the first
	// contender is not even by then.
	SpreadLeast, SpreadMost time.Duration
}

// fullPlan is what the published figures are of, and quickPlan a smoke run.
func fullPlan() Plan {
	return Plan{Rounds: 3, Passes: 2, Connections: []int{1, fewConnections, manyConnections}, Time: 1200 * time.Millisecond,
		Warm: 300 * time.Millisecond, Bulks: []int{oneBulk, someBulk}, BulkMiB: 3 << 10, Idle: mainIdle, Settle: 3 * time.Second,
		Watches: 100, Requests: 200, Probes: 50, FaultTime: 15 * time.Second, RedTime: 12 * time.Second, Delay: 5 * time.Second,
		SpreadLeast: 45 * time.Second, SpreadMost: 3 * time.Minute}
}

func quickPlan() Plan {
	p := fullPlan()
	p.Rounds, p.Passes, p.Connections, p.Time = 1, 1, []int{fewConnections, manyConnections}, time.Second
	p.BulkMiB, p.Bulks, p.Settle = 2<<10, []int{oneBulk}, 2*time.Second
	p.FaultTime, p.SpreadLeast, p.SpreadMost = 8*time.Second, 10*time.Second, 20*time.Second
	return p
}

// Limits of a plan.
const (
	maxConnections = 10000
	maxIdle        = 50000
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
	switch {
	case !ascending(p.Connections, maxConnections):
		return fmt.Errorf("connections %v: want numbers from 1 to %d, ascending", p.Connections, maxConnections)
	case !ascending(p.Bulks, maxConnections):
		return fmt.Errorf("connections %v for bulk: want numbers from 1 to %d, ascending", p.Bulks, maxConnections)
	case p.Idle < 1 || p.Idle > maxIdle:
		return fmt.Errorf("%d idle connections: want 1 to %d", p.Idle, maxIdle)
	case p.Watches < 1 || p.Watches > maxWatches:
		return fmt.Errorf("%d watches: want 1 to %d", p.Watches, maxWatches)
	case min(p.Rounds, p.Passes, p.BulkMiB, p.Requests, p.Probes) < 1:
		return fmt.Errorf("rounds, passes, MiB of bulk, requests and probes a second: want one of each at least")
	case min(p.Time, p.SpreadLeast) < leastTime || min(p.Warm, p.Settle, p.Delay) < 0:
		return fmt.Errorf("times of a measure: want %s at least", leastTime)
	case p.FaultTime <= patience || p.RedTime <= redAfter+patience:
		return fmt.Errorf("times of faults: want more than %s, and than %s for etcd: clients wait for an answer so long", patience, redAfter+patience)
	case p.SpreadMost < p.SpreadLeast:
		return fmt.Errorf("at most %s for an even spread: want no less than the least, %s", p.SpreadMost, p.SpreadLeast)
	}
	return nil
}

func ascending(list []int, most int) bool {
	return len(list) > 0 && slices.IsSorted(list) && list[0] > 0 && list[len(list)-1] <= most
}

// Room for what is not an idle connection.
const (
	otherConnections = 1000
	otherFiles       = 1000
)

// limit is how many connections a balancer takes at a time, files how many files it may have open for them.
func (p Plan) limit() int    { return p.Idle + otherConnections }
func (p Plan) files() uint64 { return uint64(2*p.limit() + otherFiles) }

// wants says whether a group is measured.
func (p Plan) wants(group string) bool { return len(p.Groups) == 0 || slices.Contains(p.Groups, group) }

// only are those of some groups that are measured.
func (p Plan) only(some []string) []string {
	return slices.DeleteFunc(slices.Clone(some), func(g string) bool { return !p.wants(g) })
}
