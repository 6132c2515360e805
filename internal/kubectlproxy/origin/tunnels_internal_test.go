package origin

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/moby/spdystream"
	"k8s.io/client-go/rest"
)

// kubelet is the other end of tunnels in a bubble of synctest: it accepts streams, and answers pings unless it is mute.
type kubelet struct {
	mu    sync.Mutex
	dials int
	fail  error
	mute  bool
	late  time.Duration // how long the answer to a stream takes
	ends  []net.Conn
}

func (k *kubelet) dial(context.Context, *rest.Config, podName) (io.ReadWriteCloser, error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.dials++
	if k.fail != nil {
		return nil, k.fail
	}
	here, there := net.Pipe()
	k.ends = append(k.ends, there)
	if k.mute {
		go io.Copy(io.Discard, there)
		return here, nil
	}
	server, err := spdystream.NewConnection(there, true)
	if err != nil {
		return nil, err
	}
	go server.Serve(func(s *spdystream.Stream) {
		time.Sleep(k.late) // of the bubble's clock
		_ = s.SendReply(http.Header{}, false)
	})
	return here, nil
}

func (k *kubelet) hangUp() {
	for _, end := range k.ends {
		end.Close()
	}
}

func to(pod int) tunnelKey { return tunnelKey{to: podName{"shop", fmt.Sprint(pod)}} }

func mustGet(t *testing.T, s *tunnels, pod int) *tunnel {
	t.Helper()
	got, err := s.get(t.Context(), to(pod))
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// inBubble runs f with tunnels whose clock is the bubble's, and ends them.
func inBubble(t *testing.T, k *kubelet, f func(t *testing.T, s *tunnels)) {
	synctest.Test(t, func(t *testing.T) {
		s := newTunnels(k.dial)
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan struct{})
		go func() { s.run(ctx); close(ended) }()
		f(t, s)
		cancel()
		<-ended
		k.hangUp()
		if open, conns := s.size(); open != 0 || conns != 0 {
			t.Errorf("%d tunnels and %d connections are left", open, conns)
		}
	})
}

func TestIdleTunnelEnds(t *testing.T) {
	inBubble(t, &kubelet{}, func(t *testing.T, s *tunnels) {
		used := mustGet(t, s, 1)
		mustGet(t, s, 2).release()
		time.Sleep(IdleTunnelTimeout + 2*sweepPeriod) // of the bubble's clock
		if open, _ := s.size(); open != 1 || !used.alive() {
			t.Errorf("%d tunnels are open, the one in use: %v; want that one", open, used.alive())
		}
		conn, err := used.dialContext(t.Context(), "tcp", "app:80")
		if err != nil {
			t.Fatal(err)
		}
		used.release()
		time.Sleep(IdleTunnelTimeout + 2*sweepPeriod) // of the bubble's clock
		if !used.alive() {
			t.Error("a tunnel with an open connection was ended")
		}
		conn.Close()
		time.Sleep(IdleTunnelTimeout + 2*sweepPeriod) // of the bubble's clock
		if used.alive() {
			t.Error("an idle tunnel is open")
		}
	})
}

// TestDay has a tunnel in use for a day: pings keep it from looking dead.
func TestDay(t *testing.T) {
	inBubble(t, &kubelet{}, func(t *testing.T, s *tunnels) {
		tunnel := mustGet(t, s, 1)
		time.Sleep(24 * time.Hour) // of the bubble's clock
		if !tunnel.alive() || tunnel.doubtful() {
			t.Error("the tunnel has not lasted")
		}
		tunnel.release()
	})
}

func TestDeadTunnelEnds(t *testing.T) {
	k := &kubelet{mute: true}
	inBubble(t, k, func(t *testing.T, s *tunnels) {
		tunnel := mustGet(t, s, 1)
		tunnel.wire.moved.Store(time.Now().Add(-DoubtTimeout - time.Second).UnixNano()) // as after a laptop's sleep
		if other := mustGet(t, s, 1); other == tunnel {
			t.Error("a doubtful tunnel was used")
		}
		tunnel.wire.moved.Store(time.Now().Add(-DeadTimeout).UnixNano())
		time.Sleep(PingPeriod + time.Second) // of the bubble's clock
		if tunnel.alive() {
			t.Error("a dead tunnel is open")
		}
	})
}

func TestTunnelBounds(t *testing.T) {
	k := &kubelet{}
	inBubble(t, k, func(t *testing.T, s *tunnels) {
		for i := range MaxTunnels {
			mustGet(t, s, i)
			time.Sleep(time.Millisecond) // of the bubble's clock: none is as old as another
		}
		if _, err := s.get(t.Context(), to(MaxTunnels)); !errors.Is(err, errTooManyTunnels) {
			t.Fatalf("one tunnel too many: %v", err)
		}
		second := mustGet(t, s, 2)
		second.release()
		second.release()
		mustGet(t, s, MaxTunnels)
		synctest.Wait()
		if open, _ := s.size(); open != MaxTunnels || second.alive() {
			t.Errorf("%d tunnels, the idle one open: %v", open, second.alive())
		}
	})
}

func TestTunnelsPerPod(t *testing.T) {
	inBubble(t, &kubelet{}, func(t *testing.T, s *tunnels) {
		for range 3 * TunnelsPerPod {
			mustGet(t, s, 1).stalled.Store(1)
		}
		if open, _ := s.size(); open != TunnelsPerPod {
			t.Errorf("%d tunnels to one pod, want %d", open, TunnelsPerPod)
		}
	})
}

func TestOneDialForAll(t *testing.T) {
	k := &kubelet{}
	inBubble(t, k, func(t *testing.T, s *tunnels) {
		var all sync.WaitGroup
		for range 50 {
			all.Go(func() {
				if _, err := s.get(t.Context(), to(1)); err != nil {
					t.Error(err)
				}
			})
		}
		all.Wait()
		if k.dials != 1 {
			t.Errorf("%d tunnels were opened, want 1", k.dials)
		}
		k.fail = statusError(401, nil)
		if _, err := s.get(t.Context(), to(2)); err == nil || k.dials != 3 {
			t.Errorf("%v after %d dials, want an error after two tries", err, k.dials-1)
		}
		if s.count != 1 {
			t.Errorf("%d tunnels are counted, want 1", s.count)
		}
	})
}

// TestFarPod has an app whose client is behind, and a kubelet that answers later than busyPeriod: a new connection waits for
// the answer, unless nothing arrives behind that client.
func TestFarPod(t *testing.T) {
	inBubble(t, &kubelet{late: 3 * busyPeriod}, func(t *testing.T, s *tunnels) {
		tunnel := mustGet(t, s, 1)
		tunnel.stall(1)
		conn, err := tunnel.dialContext(t.Context(), "tcp", "app:80")
		if err != nil {
			t.Fatal(err)
		}
		conn.Close()
		tunnel.blocked.Add(1)
		if _, err := tunnel.dialContext(t.Context(), "tcp", "app:80"); !errors.Is(err, errTunnelBusy) {
			t.Errorf("behind a client without room: %v", err)
		}
		tunnel.blocked.Add(-1)
		time.Sleep(time.Second) // of the bubble's clock: the answers come
	})
}

// TestClosedIsNotBehind has a client leave while frames still come for it.
func TestClosedIsNotBehind(t *testing.T) {
	inBubble(t, &kubelet{}, func(t *testing.T, s *tunnels) {
		tunnel := mustGet(t, s, 1)
		c, err := tunnel.dial("80")
		if err != nil {
			t.Fatal(err)
		}
		c.watch(c.keep(make([]byte, behind+1)))
		if n := tunnel.stalled.Load(); n != 1 {
			t.Errorf("%d clients are behind, want 1", n)
		}
		c.Close()
		c.watch(c.keep(make([]byte, 1)))
		if n := tunnel.stalled.Load(); n != 0 {
			t.Errorf("%d clients are behind, want none: the one that was has left", n)
		}
	})
}

// TestEndWhileDialing ends all while a tunnel is being opened to a pod that does not answer.
func TestEndWhileDialing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newTunnels(func(ctx context.Context, _ *rest.Config, _ podName) (io.ReadWriteCloser, error) {
			<-ctx.Done()
			return nil, ctx.Err()
		})
		failed := make(chan error, 1)
		go func() {
			_, err := s.get(t.Context(), to(1))
			failed <- err
		}()
		synctest.Wait()
		start := time.Now()
		if s.close(); time.Since(start) > 0 {
			t.Errorf("the end took %v", time.Since(start))
		}
		if err := <-failed; err != errEnding {
			t.Errorf("who waited was told %v", err)
		}
	})
}

// stuckWire is a connection whose Close waits.
type stuckWire struct {
	net.Conn
	free chan struct{}
}

func (w stuckWire) Close() error { <-w.free; return w.Conn.Close() }

func TestKillDoesNotWait(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		here, there := net.Pipe()
		free := make(chan struct{})
		tunnel, err := newTunnel(newWire(stuckWire{here, free}))
		if err != nil {
			t.Fatal(err)
		}
		killed := make(chan struct{})
		go func() { tunnel.kill(); close(killed) }()
		synctest.Wait()
		if !isClosed(killed) {
			t.Error("kill waits for the goodbye")
		}
		close(free)
		tunnel.wait()
		there.Close()
	})
}
