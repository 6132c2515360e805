package kubeproxy

import (
	"fmt"
	"slices"
	"strings"
	"time"

	"varco.dev/bench/internal/objects"
)

// Groups of measures, as --measures names them.
const (
	groupCold     = "cold"     // the start, and memory
	groupChange   = "change"   // changes one at a time, with their processor time
	groupLoaded   = "loaded"   // changes beside others
	groupPath     = "path"     // connections
	groupAffinity = "affinity" // session affinity
)

// groups are all groups, in the order in which they are measured.
var groups = []string{groupCold, groupChange, groupLoaded, groupPath, groupAffinity}

// Names of the measures in the samples.
const (
	coldSeconds    = "cold start, s"
	unanswered     = "Services that do not answer after the start"
	rssMiB         = "resident memory, MiB"
	peakMiB        = "peak of resident memory, MiB"
	changeMillis   = "change to packet, ms"
	answerMillis   = "API answer to packet, ms"
	writtenMillis  = "change to API answer, ms"
	watchedMillis  = "change to watch event, ms"
	changeCPU      = "CPU per change, ms"
	loadedMillis   = "change to packet under load, ms"
	loadedAnswer   = "API answer to packet under load, ms"
	loadedWatched  = "change to watch event under load, ms"
	loadedCPU      = "CPU per change under load, ms"
	loadedRate     = "changes per second under load"
	clusterIPP50   = "connect by ClusterIP p50, µs"
	clusterIPP99   = "connect by ClusterIP p99, µs"
	addedP50       = "what the ClusterIP adds p50, µs"
	directP50      = "connect directly p50, µs"
	directP99      = "connect directly p99, µs"
	plainRate      = "connections per second, 100 endpoints"
	stickyRate     = "connections per second, 100 endpoints and affinity"
	stickyQuotient = "affinity's share of the rate without"
	stickyStrays   = "connections that affinity has sent elsewhere"
)

// mainSize is the size that the bars are for, and of the measures that are taken at one size only.
const mainSize = 10000

// settle is how long after the start of a proxy its memory is read and changes begin.
const settle = 5 * time.Second

// Plan says what to measure.
type Plan struct {
	// Sizes are numbers of Services, ascending.
	Sizes []int
	// Rounds is how often each contender starts anew at each size; their order changes from round to round. FewRounds is
	// the same above mainSize, where one start of upstream's takes minutes.
	Rounds, FewRounds int
	// Groups of measures; all if empty.
	Groups []string
	// Changes is how many changes are timed in each round one at a time, at mainSize; at other sizes a quarter of it.
	// Loaded is how many are timed beside PerSecond others, at mainSize or, without that, the largest size.
	Changes, Loaded, PerSecond int
	// Gap is the time between two changes. Upstream applies a change at once if its last was a second ago or more.
	Gap time.Duration
	// Connects is how many connections are timed each way and round.
	Connects int
}

// fullPlan is what the published figures are of, and quickPlan a smoke run.
func fullPlan() Plan {
	return Plan{Sizes: []int{1000, 5000, 10000, 30000}, Rounds: 5, Changes: 20, Loaded: 15, PerSecond: 100,
		FewRounds: 3, Gap: 1500 * time.Millisecond, Connects: 4000}
}

func quickPlan() Plan {
	return Plan{Sizes: []int{1000}, Rounds: 2, Changes: 6, Loaded: 6, PerSecond: 100,
		FewRounds: 1, Gap: 1500 * time.Millisecond, Connects: 1000}
}

// check tells of a plan that cannot be carried out.
func (p Plan) check() error {
	for _, n := range p.Sizes {
		if n < 2 || n > objects.MaxServices {
			return fmt.Errorf("%d Services: want 2 to %d", n, objects.MaxServices)
		}
	}
	for _, g := range p.Groups {
		if !slices.Contains(groups, g) {
			return fmt.Errorf("measures %q: want some of %s", g, strings.Join(groups, ", "))
		}
	}
	switch {
	case len(p.Sizes) == 0 || !slices.IsSorted(p.Sizes):
		return fmt.Errorf("sizes %v: want one at least, ascending", p.Sizes)
	case p.Rounds < 1 || p.FewRounds < 1 || p.Changes < 1 || p.Loaded < 1 || p.PerSecond < 1 || p.Connects < 1:
		return fmt.Errorf("rounds, changes and connections: want one of each at least")
	}
	return nil
}

// wants says whether a group is measured at a size.
func (p Plan) wants(group string, size int) bool {
	if len(p.Groups) > 0 && !slices.Contains(p.Groups, group) {
		return false
	}
	return group != groupLoaded || size == p.mainSize()
}

// mainSize is the size for what is measured at one only.
func (p Plan) mainSize() int {
	if slices.Contains(p.Sizes, mainSize) {
		return mainSize
	}
	return p.Sizes[len(p.Sizes)-1]
}

func (p Plan) rounds(size int) int {
	if size > mainSize {
		return min(p.Rounds, p.FewRounds)
	}
	return p.Rounds
}

func (p Plan) changes(size int) int {
	if size == p.mainSize() {
		return p.Changes
	}
	return (p.Changes + 3) / 4
}
