package outbound_test

import (
	"context"
	"errors"
	"net"
	"net/http"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"varco.dev/internal/apiserverproxy/outbound"
)

// TestDeadTargetBehindEgress has many clients give up on a target that an egress gets no answer from; net/http goes on to dial
// for each of them. Another target is reached all the same.
func TestDeadTargetBehindEgress(t *testing.T) {
	reached := errors.New("reached")
	var open, most atomic.Int64
	end := make(chan struct{})
	defer close(end)
	o, err := outbound.New(outbound.Config{Egress: func(_ context.Context, _, address string) (net.Conn, error) {
		if strings.HasPrefix(address, "10.0.0.2:") {
			return nil, reached
		}
		n := open.Add(1)
		for old := most.Load(); n > old && !most.CompareAndSwap(old, n); old = most.Load() {
		}
		defer open.Add(-1)
		<-end // whatever its context says
		return nil, context.Canceled
	}})
	if err != nil {
		t.Fatal(err)
	}
	ask := func(ctx context.Context, url string) error {
		r, err := http.NewRequestWithContext(ctx, "GET", url, nil)
		if err != nil {
			t.Fatal(err)
		}
		_, err = o.RoundTripper(outbound.Profile{Scheme: "http"}).RoundTrip(r)
		return err
	}
	for range 1500 {
		ctx, cancel := context.WithCancel(t.Context())
		time.AfterFunc(100*time.Microsecond, cancel)
		if err := ask(ctx, "http://10.0.0.1/"); !errors.Is(err, context.Canceled) {
			t.Fatal(err)
		}
	}
	ctx, cancel := context.WithTimeout(t.Context(), 5*time.Second)
	defer cancel()
	if err := ask(ctx, "http://10.0.0.2/"); !errors.Is(err, reached) {
		t.Errorf("another target: %v", err)
	}
	if n := most.Load(); n < 2 || n > 64 {
		t.Errorf("%d connections to the dead one were being made at a time", n)
	}
}
