package kubeproxy_test

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"varco.dev/internal/apiwatch"
	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/kubeproxy/nft/nfttest"
	"varco.dev/internal/nettest"
	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// TestRelistChangesNothing has the API server forget its history while 10,000 Services are served, so that all of them are
// listed again: nothing is written to the kernel, and clients notice nothing.
func TestRelistChangesNothing(t *testing.T) {
	s := newSole(t, false)
	s.api.set(serviceAt("one", "10.96.0.1"), sliceOf("one", portOfA, soleAddr4))
	s.api.set(many(10_000)...)
	r := s.run()
	defer r.stop()
	s.served(r, "10.96.0.1", "a")
	commits, generation := r.kernel.commits.Load(), s.generation()

	asked, failed := s.during("10.96.0.1", func() {
		for range 2 {
			services, slices := s.api.listed("services"), s.api.listed("endpointslices")
			s.api.expire()
			eventually(t, 30*time.Second, func() string {
				if s.api.listed("services") == services || s.api.listed("endpointslices") == slices {
					return "not listed again"
				}
				return ""
			})
			s.marker(r) // what was listed is in the table now
			commits++
		}
	})
	if got := r.kernel.commits.Load(); got != commits {
		t.Errorf("%d commits more than the changes", got-commits)
	}
	if got := s.generation() - generation; got != 2 {
		t.Errorf("nftables have changed %d times, want 2, for the 2 changes", got)
	}
	if asked < 10 || failed > 0 {
		t.Errorf("%d of %d connections failed", failed, asked)
	}
}

// marker changes one more Service, and returns when that is served.
func (s *sole) marker(r *running) {
	s.t.Helper()
	before := r.kernel.commits.Load()
	s.markers++
	s.api.set(serviceAt(fmt.Sprint("marker-", s.markers), fmt.Sprintf("10.96.1.%d", s.markers)))
	eventually(s.t, 30*time.Second, func() string {
		if r.kernel.commits.Load() == before {
			return "a change is not applied"
		}
		return ""
	})
}

// generation is the number of the kernel's transactions in this namespace.
func (s *sole) generation() uint32 {
	s.t.Helper()
	answers, err := s.asker.Execute(netlink.Message{
		Header: netlink.Header{Type: unix.NFNL_SUBSYS_NFTABLES<<8 | unix.NFT_MSG_GETGEN, Flags: netlink.Request},
		Data:   make([]byte, 4), // struct nfgenmsg: of no family
	})
	s.must(err)
	attributes, err := netlink.NewAttributeDecoder(answers[0].Data[4:])
	s.must(err)
	attributes.ByteOrder = binary.BigEndian
	for attributes.Next() {
		if attributes.Type() == unix.NFTA_GEN_ID {
			return attributes.Uint32()
		}
	}
	s.t.Fatal("the kernel tells no generation")
	return 0
}

// served returns once a pod answers at a ClusterIP.
func (s *sole) served(r *running, ip, pod string) {
	s.t.Helper()
	eventually(s.t, 30*time.Second, func() string {
		if who, err := s.quickly(ip); err != nil || who != pod {
			text, _ := r.log.all()
			return fmt.Sprintf("%q answers at %s, error %v\n%s", who, ip, err, text)
		}
		return ""
	})
}

// during opens connections while a function runs, and counts them and those that fail.
func (s *sole) during(ip string, fn func()) (asked, failed int) {
	s.t.Helper()
	ctx, cancel := context.WithCancel(s.t.Context())
	var asking sync.WaitGroup
	asking.Go(func() {
		c := nettest.Client{Host: s.ns, Protocol: "tcp"}
		for ; ctx.Err() == nil; asked++ {
			if a, err := c.Ask(context.Background(), addrPort(ip)); err != nil || a.Server == "" {
				failed++
				s.t.Logf("got %+v, %v", a, err)
			}
		}
	})
	fn()
	cancel()
	asking.Wait()
	return asked, failed
}

// TestOutageOfAPIServer stops the API server, changes what it will say, and starts it again: meanwhile traffic goes on and
// damage is repaired, and afterwards the changes are applied.
func TestOutageOfAPIServer(t *testing.T) {
	s := newSole(t, false)
	s.api.set(serviceAt("one", "10.96.0.1"), sliceOf("one", portOfA, soleAddr4), serviceAt("two", "10.96.0.2"), sliceOf("two", portOfA, soleAddr4))
	r := s.run()
	defer r.stop()
	s.served(r, "10.96.0.1", "a")
	s.watched(r.log)

	s.api.stop()
	asked, failed := s.during("10.96.0.1", func() {
		commits := r.kernel.commits.Load()
		time.Sleep(time.Second) // in which the connections of the watcher fail, and clients go on
		if got := r.kernel.commits.Load(); got != commits {
			t.Errorf("%d commits without an API server", got-commits)
		}
	})
	if asked < 10 || failed > 0 {
		t.Errorf("%d of %d connections failed", failed, asked)
	}
	v := newVandal(s)
	v.act(v.DelTable)
	s.served(r, "10.96.0.1", "a")

	s.api.set(sliceOf("one", portOfA+1, soleAddr4), serviceAt("three", "10.96.0.3"), sliceOf("three", portOfA+2, soleAddr4))
	s.api.delete(serviceAt("two", ""), sliceOf("two", 0))
	s.api.restart(t)
	s.served(r, "10.96.0.1", "b")
	s.served(r, "10.96.0.3", "c")
	s.expect(10 * time.Second)
	r.proxyIsWell(t, "varco-kube-proxy")
}

// childClock is the variable by which a process is one for a test with a clock of its own.
const childClock = "VARCO_TEST_CLOCK"

// TestLongOutageOfAPIServer is five minutes without an API server, on a clock of its own: nothing is applied, it is said
// that and since when it is away, and what changed is applied soon after it is back.
func TestLongOutageOfAPIServer(t *testing.T) {
	// The library paces its messages by a variable with the time of the last one, and sleeps until then where that is in the
	// future. A clock that begins in the year 2000 must go beyond the present, and then not be that of the other tests.
	if os.Getenv(childClock) == "" {
		again := exec.Command(os.Args[0], "-test.run=^"+t.Name()+"$")
		again.Env = append(os.Environ(), childClock+"=own")
		if out, err := again.CombinedOutput(); err != nil {
			t.Errorf("%v\n%s", err, out)
		}
		return
	}
	synctest.Test(t, func(t *testing.T) {
		time.Sleep(100 * 365 * 24 * time.Hour) // on the bubble's clock
		var away atomic.Bool
		var streams sync.Map // of all watches that there were
		client := fake.NewClientset(serviceAt("one", "10.96.0.1"), sliceOf("one", 8080, "10.244.0.1"), soleNode())
		client.PrependReactor("*", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
			if away.Load() {
				return true, nil, errors.New("connection refused")
			}
			return false, nil, nil
		})
		client.PrependWatchReactor("*", func(a clienttesting.Action) (bool, watch.Interface, error) {
			if away.Load() {
				return true, nil, errors.New("connection refused")
			}
			w, err := client.Tracker().Watch(a.GetResource(), a.GetNamespace())
			streams.Store(w, true)
			return true, w, err
		})
		kernel := &nfttest.Kernel{}
		log := newLogBook()
		watcher, loop := stack(client, nft.New(counted{kernel}), log)
		defer runStack(t, watcher, loop)()
		time.Sleep(time.Second) // on the bubble's clock
		synctest.Wait()
		before, dump := kernel.Commits(), kernel.Dump()
		away.Store(true)
		streams.Range(func(w, _ any) bool { w.(watch.Interface).Stop(); return true })
		began := time.Now()
		time.Sleep(5 * time.Minute) // on the bubble's clock
		if since, err := watcher.Lost(); since.IsZero() || since.Sub(began) > 20*time.Second || err == nil {
			t.Errorf("away since %s, said to be since %s, error %v", began, since, err)
		}
		if kernel.Commits() != before || kernel.Dump() != dump {
			t.Error("the kernel was changed without an API server")
		}
		if h := loop.Health(); h.Stuck(time.Now()) {
			t.Errorf("stuck: %+v", h)
		}
		log.await(t, "lost the API server")
		tracker := client.Tracker()
		two := serviceAt("two", "10.96.0.2")
		changed := sliceOf("one", 8080, "10.244.0.9")
		err := errors.Join(tracker.Add(two), tracker.Update(discoveryv1.SchemeGroupVersion.WithResource("endpointslices"), changed, "x", metav1.UpdateOptions{}))
		if err != nil {
			t.Fatal(err)
		}
		away.Store(false)
		time.Sleep(25 * time.Second) // the longest pause of the watcher, with its jitter, and a little
		synctest.Wait()
		table := service.NewTable("node-1")
		set(table, []runtime.Object{serviceAt("one", "10.96.0.1"), two, changed, soleNode()})
		if diff := cmp.Diff(meaning(t, table.Changes(), counting), held(t, counted{kernel})); diff != "" {
			t.Errorf("after the outage (-want +got)\n%s", diff)
		}
		if since, _ := watcher.Lost(); !since.IsZero() {
			t.Errorf("still said to be away since %s", since)
		}
	})
}

// stack is the way from the API server to a data plane, as in a proxy, without what looks at the machine.
func stack(client *fake.Clientset, plane reconcile.DataPlane, log *logBook) (*apiwatch.Watcher, *reconcile.Loop) {
	var loop *reconcile.Loop
	logger := slog.New(slog.NewTextHandler(log, nil))
	watcher := apiwatch.New(apiwatch.Config{
		Client: client, NodeName: "node-1", Log: logger,
		Update: func(fn func(*service.Table)) { loop.Update(fn) },
		Node: func(n apiwatch.Node) {
			loop.Update(func(t *service.Table) { t.SetNode(n.Table()); t.SetNodeAddrs(n.Addrs) })
		},
	})
	loop = reconcile.New(reconcile.Config{Table: service.NewTable("node-1"), Plane: plane, Start: watcher.Synced(), Log: logger})
	return watcher, loop
}

// runStack runs it until the function returned is called.
func runStack(t *testing.T, watcher *apiwatch.Watcher, loop *reconcile.Loop) (stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	var running sync.WaitGroup
	running.Go(func() { watcher.Run(ctx) })
	running.Go(func() { loop.Run(ctx) })
	return func() {
		cancel()
		running.Wait()
		time.Sleep(time.Minute) // on the bubble's clock: for what waits to try again, and ends then
	}
}
