package kubeproxy

import (
	"testing"
	"time"

	"varco.dev/internal/service"
)

// TestClocksOfOthers has changes begin in the future, by the clock of a machine that is ahead or by what anybody has
// written into an annotation: the sum of how long they took must not go down.
func TestClocksOfOthers(t *testing.T) {
	m := newMetrics(metricsConfig{Families: []service.Family{service.IPv4}})
	const sum = "kubeproxy_network_programming_duration_seconds_sum"
	for _, ahead := range []time.Duration{time.Hour, 1<<63 - 1} {
		m.applied(service.Changes{Triggers: []time.Time{time.Now().Add(ahead)}}, false)
		wantSamples(t, ahead.String(), m, sum, sum+`{ip_family="IPv4"} 0`)
	}
	m.applied(service.Changes{Triggers: []time.Time{time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC), {}, time.Unix(1, 0)}}, false)
	wantSamples(t, "the last of all years, and the first", m, sum, sum+`{ip_family="IPv4"} 0`)
}
