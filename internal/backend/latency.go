package backend

import (
	"math"
	"time"
)

const (
	// smoothing is how many samples the average of a target's latency goes back. RFC 6298 takes 8 for round trips of TCP, but
	// those of requests vary more: the binary logarithm of exponentially distributed ones has a standard deviation of 1.85, of
	// which 32 leave 0.23. A target that has become ten times as slow is known for it after a dozen answers.
	smoothing = 32
	// fewSamples are too few to say anything: the first ones are of new connections to a target that may have been idle, and a
	// share that is lost by them does not come back.
	fewSamples = smoothing
	// latencyFloor is the least latency that counts. Below it schedulers make the difference, not targets: on a busy machine
	// the geometric means of equal pods were 1 and 3 ms. Who is slow below it still shows in what is in flight.
	latencyFloor = 2 * time.Millisecond
	// latencyMemory is how long a latency is remembered: the time of decay of Finagle's and Linkerd's peak EWMA.
	latencyMemory = 10 * time.Second
	// clearlySlow is how many times as long as usual a target must take for that to count, and countsAs what it counts for
	// then. With 2, one of six equal pods on a busy machine had a quarter of its share.
	clearlySlow = 4
	countsAs    = 3
	// mostSlowness bounds what it counts for, so that a target which has become fast again is noticed.
	mostSlowness = 16
)

// average is an exponentially weighted moving average of the logarithms of latencies: their geometric mean. That of the
// latencies themselves would be made by the rare long ones, which a target can do nothing about if it was asked for them; a
// target that is stuck shows in what is in flight.
type average struct {
	log2    float64 // of nanoseconds
	samples int
	heard   time.Duration // when the last one was
}

// add counts a latency, as one of a number that the average goes back.
func (a *average) add(latency, now time.Duration, back int) {
	if now-a.heard >= latencyMemory {
		a.samples = 0
	}
	a.samples = min(a.samples+1, back)
	a.log2 += (math.Log2(float64(max(latency, latencyFloor))) - a.log2) / float64(a.samples)
	a.heard = now
}

// known tells whether the average says anything.
func (a *average) known(now time.Duration) bool {
	return a.samples >= fewSamples && now-a.heard < latencyMemory
}

// learn counts a latency of a target.
func (p *Pool) learn(t *target, latency, now time.Duration) {
	t.latency.add(latency, now, smoothing)
	p.latency.add(latency, now, smoothing*len(p.targets)+1)
}

// slowness is how many times as much as usual a request is for a target: 1 unless its latency is clearly above that of all.
func (p *Pool) slowness(t *target, now time.Duration) float64 {
	if !t.latency.known(now) || !p.latency.known(now) || t.latency.log2 < p.latency.log2+math.Log2(clearlySlow) {
		return 1
	}
	return min(math.Exp2(t.latency.log2-p.latency.log2)/clearlySlow*countsAs, mostSlowness)
}
