package balance_test

import (
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

// metric returns the value of a metric, with a label's value if it has one.
func metric(t testing.TB, c prometheus.Collector, name, label string) float64 {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(c)
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range families {
		for _, m := range f.GetMetric() {
			if f.GetName() == name && (len(m.GetLabel()) == 0 || m.GetLabel()[0].GetValue() == label) {
				return m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	t.Fatalf("there is no %s", name)
	return 0
}
