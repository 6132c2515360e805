package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sync/errgroup"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	typedv1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/tools/cache"
	recorder "k8s.io/client-go/tools/record"
	"varco.dev/internal/nettest"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Config is all that an agent needs; every field without another word is required.
type Config struct {
	Name      string               // of the Node
	Dir       string               // folder for state and logs
	NetnsDir  string               // folder for the files of pods' network namespaces
	NodeIPs   []netip.Addr         // the node's addresses, IPv4 first
	Zone      string               // optional: label topology.kubernetes.io/zone of the Node
	Images    map[string][]string  // image name -> absolute path of a program, and its first arguments
	Namespace *nettest.Namespace   // the node's network
	Client    kubernetes.Interface // as system:node:NAME
	Log       *slog.Logger
	Server    *ServerConfig // optional: without it port 10250 is not served
}

// maxStarts is how many pods of a node are being set up at a time.
const maxStarts = 8

// Agent is the node agent of one node.
type Agent struct {
	cfg    Config
	events recorder.EventRecorder
	starts chan struct{} // one element for each pod that is being set up

	networked chan struct{} // closed when addresses is set
	changed   chan struct{} // one element: the Node is to be compared with the API

	// mu guards the fields below.
	mu        sync.Mutex
	pods      map[types.UID]*pod
	earlier   map[netip.Addr]bool // addresses that pods had when they were seen first
	podCIDRs  []string            // that addresses is of
	addresses *addresses
	workers   sync.WaitGroup
}

// New makes an agent. It does nothing until Run.
func New(cfg Config) *Agent {
	return &Agent{
		cfg: cfg, starts: make(chan struct{}, maxStarts), networked: make(chan struct{}),
		changed: make(chan struct{}, 1), pods: map[types.UID]*pod{}, earlier: map[netip.Addr]bool{},
	}
}

// Run runs the node until ctx ends; it returns nil then. No process, network or mount of a pod is left behind; what the
// API shows of them stays as it is, as after a node's crash.
func (a *Agent) Run(ctx context.Context) error {
	if err := a.removeLeftovers(); err != nil {
		return fmt.Errorf("remove what an earlier agent left: %w", err)
	}
	stop := a.startEvents()
	defer stop()
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error { return a.runNode(ctx) })
	g.Go(func() error { return a.runRoutes(ctx) })
	g.Go(func() error { return a.runPods(ctx) })
	if a.cfg.Server != nil {
		g.Go(func() error { return a.serve(ctx) })
	}
	if err := g.Wait(); err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	return nil
}

func (a *Agent) startEvents() (stop func()) {
	b := recorder.NewBroadcaster()
	b.StartRecordingToSink(&typedv1.EventSinkImpl{Interface: a.cfg.Client.CoreV1().Events("")})
	a.events = b.NewRecorder(scheme.Scheme, v1.EventSource{Component: "varco-lab-node", Host: a.cfg.Name})
	return b.Shutdown
}

// podDir is the folder of one pod's state.
func (a *Agent) podDir(uid types.UID) string { return filepath.Join(a.cfg.Dir, "pods", string(uid)) }

// podNetworks waits until the node has its pod networks.
func (a *Agent) podNetworks(ctx context.Context) (*addresses, error) {
	select {
	case <-a.networked:
		a.mu.Lock()
		defer a.mu.Unlock()
		return a.addresses, nil
	case <-ctx.Done():
		return nil, ctx.Err()
	}
}

// runPods gives each pod of the node a worker, until ctx ends and all workers have ended.
func (a *Agent) runPods(ctx context.Context) error {
	if err := os.MkdirAll(filepath.Join(a.cfg.Dir, "pods"), 0o755); err != nil {
		return fmt.Errorf("make state folder: %w", err)
	}
	f := informers.NewSharedInformerFactoryWithOptions(a.cfg.Client, 0, informers.WithTweakListOptions(func(o *metav1.ListOptions) {
		o.FieldSelector = fields.OneTermEqualSelector("spec.nodeName", a.cfg.Name).String()
	}))
	_, err := f.Core().V1().Pods().Informer().AddEventHandler(cache.ResourceEventHandlerFuncs{
		AddFunc:    func(obj any) { a.seen(ctx, obj.(*v1.Pod)) },
		UpdateFunc: func(_, obj any) { a.seen(ctx, obj.(*v1.Pod)) },
		DeleteFunc: a.lost,
	})
	if err != nil {
		return fmt.Errorf("watch pods: %w", err)
	}
	f.Start(ctx.Done())
	<-ctx.Done()
	f.Shutdown()
	a.workers.Wait()
	return nil
}

// seen takes a pod as the API shows it now.
func (a *Agent) seen(ctx context.Context, obj *v1.Pod) {
	if obj.Spec.NodeName != a.cfg.Name {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p, ok := a.pods[obj.UID]
	if !ok {
		// A pod that was deleted by force may still have processes and the name.
		var before *pod
		for _, other := range a.pods {
			if o := other.latest(); o.Name == obj.Name && o.Namespace == obj.Namespace {
				a.forget(other)
				before = other
			}
		}
		p = newPod(ctx, a, obj)
		a.pods[obj.UID] = p
		addAddresses(a.earlier, obj)
		a.workers.Go(func() {
			if before != nil {
				<-before.done
			}
			p.run(ctx)
		})
	}
	p.update(obj)
}

// lost takes that a pod's object is gone. Its worker is kept until then, also one that has ended: what the watch still
// tells of the pod must not start it again.
func (a *Agent) lost(obj any) {
	if d, ok := obj.(cache.DeletedFinalStateUnknown); ok {
		obj = d.Obj
	}
	gone, ok := obj.(*v1.Pod)
	if !ok {
		return
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	p := a.pods[gone.UID]
	if p == nil {
		return
	}
	a.forget(p)
}

// forget ends a pod whose object is gone and removes its worker when nothing of it is left. a.mu must be held.
func (a *Agent) forget(p *pod) {
	if p.isGone() {
		return
	}
	p.vanish()
	a.workers.Go(func() {
		<-p.done
		a.mu.Lock()
		defer a.mu.Unlock()
		delete(a.pods, p.latest().UID)
	})
}

// logInUse says whether a file is a log of a pod that still lives.
func (a *Agent) logInUse(file string) bool {
	for _, p := range a.list() {
		if p.lives() && strings.Contains(file, "_"+string(p.latest().UID)+"_") {
			return true
		}
	}
	return false
}

func (p *pod) lives() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return !p.rec.ended && !p.before
}

// list returns the pods' workers.
func (a *Agent) list() []*pod {
	a.mu.Lock()
	defer a.mu.Unlock()
	var all []*pod
	for _, p := range a.pods {
		all = append(all, p)
	}
	return all
}
