package apiwatch

import (
	"strings"
	"testing"
)

// TestWeightsAreBounded writes as many weights as fit into an annotation.
func TestWeightsAreBounded(t *testing.T) {
	c := converter{}
	if got := c.weights(strings.Repeat("zone/a=1,", 29_000)); len(got) != maxWeights || len(c.Problems) != 1 {
		t.Errorf("took %d weights and found %d problems, want %d and 1", len(got), len(c.Problems), maxWeights)
	}
	c = converter{}
	if got := c.weights(strings.Repeat("zone/a=1, ", maxWeights)); len(got) != maxWeights || len(c.Problems) != 0 {
		t.Errorf("took %d weights and found %d problems, want %d and none", len(got), len(c.Problems), maxWeights)
	}
}
