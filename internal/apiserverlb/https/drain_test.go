package https_test

import (
	"context"
	"sync"
	"sync/atomic"
	"testing"
	"time"
)

// TestDrainRefusesNobody wants requests that are on their way when a server begins to end to be answered.
func TestDrainRefusesNobody(t *testing.T) {
	s := newStage(t, nil)
	var refused, answered atomic.Int64
	var all sync.WaitGroup
	for n := range 16 {
		client := s.client(t, nil, 1+n%2)
		all.Go(func() {
			for {
				resp, _, err := ask(client, "GET", s.url+pods, token(), nil)
				switch {
				case err != nil:
					return
				case resp.StatusCode != 200:
					refused.Add(1)
				default:
					answered.Add(1)
				}
			}
		})
	}
	waitFor(t, func() bool { return answered.Load() > 1000 })
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := s.Drain(ctx); err != nil {
		t.Error(err)
	}
	all.Wait()
	if n := refused.Load(); n != 0 {
		t.Errorf("%d were refused", n)
	}
}
