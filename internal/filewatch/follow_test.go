package filewatch_test

import (
	"context"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/filewatch"
)

// TestFollow gives each look another thing to find. Time passes at once.
func TestFollow(t *testing.T) {
	tests := []struct {
		name  string
		found []string
		told  []string
	}{
		{"nothing new", []string{"a", "a", "a"}, nil},
		{"new", []string{"a", "b", "b", "b"}, []string{"b"}},
		{"while it is written", []string{"b", "bc", "bcd", "bcd"}, []string{"bcd"}},
		{"there and back", []string{"b", "b", "a", "a"}, []string{"b", "a"}},
		{"back before it counted", []string{"b", "a", "b", "a", "a"}, nil},
		{"new from the start", []string{"b", "b"}, []string{"b"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				ctx, cancel := context.WithCancel(t.Context())
				defer cancel()
				looks := 0
				look := func() string {
					looks++
					if looks >= len(tt.found) {
						cancel()
					}
					return tt.found[min(looks, len(tt.found))-1]
				}
				var told []string
				err := filewatch.Follow(ctx, "a", look, func(s string) { told = append(told, s) })
				if err != nil {
					t.Errorf("ended with %v", err)
				}
				if d := cmp.Diff(tt.told, told); d != "" {
					t.Errorf("(-want +got)\n%s", d)
				}
			})
		})
	}
}
