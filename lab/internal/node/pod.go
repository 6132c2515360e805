package node

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
)

// Why a pod's processes are killed.
var (
	errGrace = errors.New("the grace period is over")
	errGone  = errors.New("the pod was deleted by force")
)

// pod is the worker of one pod.
type pod struct {
	agent   *Agent
	log     *slog.Logger
	changed chan struct{} // one element: there is a change to publish
	done    chan struct{} // closed when nothing of the pod is left

	// Signals of the pod's life: stop ends when the pod is to end, kill when its processes must not run on, over when its
	// object is to be deleted or is gone.
	stop, kill, over       context.Context
	cancelStop, cancelKill context.CancelCauseFunc
	cancelOver             context.CancelFunc

	// Set by run before any container is started.
	sandbox *sandbox
	volumes *volumes

	// mu guards the fields below.
	mu       sync.Mutex
	api      *v1.Pod // latest known; not changed in place
	rec      record
	gone     bool // the object is deleted already
	before   bool // it had ended before the agent saw it: its status is another agent's, and stays
	deadline time.Time
	timer    *time.Timer                  // kills at deadline; nil: no deadline yet
	running  map[string]*runningContainer // by container name, for exec and attach
}

// newPod returns the worker of a pod; ctx is the agent's life.
func newPod(ctx context.Context, a *Agent, obj *v1.Pod) *pod {
	p := &pod{
		agent: a, api: obj, changed: make(chan struct{}, 1), done: make(chan struct{}),
		log:     a.cfg.Log.With("pod", obj.Namespace+"/"+obj.Name),
		running: map[string]*runningContainer{},
	}
	p.stop, p.cancelStop = context.WithCancelCause(ctx)
	p.kill, p.cancelKill = context.WithCancelCause(ctx)
	p.over, p.cancelOver = context.WithCancel(ctx)
	p.before = hasEnded(obj)
	p.rec = firstRecord(obj)
	p.rec.hostIPs = a.cfg.NodeIPs
	return p
}

func (p *pod) latest() *v1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.api
}

// change changes the record and has it published.
func (p *pod) change(fn func(*record)) {
	p.mu.Lock()
	fn(&p.rec)
	p.mu.Unlock()
	p.notify()
}

func (p *pod) notify() {
	select {
	case p.changed <- struct{}{}:
	default:
	}
}

// update takes the pod as the API shows it now.
func (p *pod) update(obj *v1.Pod) {
	obj = p.learn(obj)
	if obj.DeletionTimestamp != nil {
		grace := time.Duration(0)
		if s := obj.DeletionGracePeriodSeconds; s != nil {
			grace = time.Duration(*s) * time.Second
		}
		p.end(grace)
		p.cancelOver()
	}
	p.notify()
}

// end ends the pod's containers within the grace period. A later call can only shorten it.
func (p *pod) end(grace time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	at := time.Now().Add(grace)
	switch {
	case p.timer == nil:
		p.timer = time.AfterFunc(grace, func() { p.cancelKill(errGrace) })
		p.deadline = at
	case at.Before(p.deadline):
		p.timer.Reset(grace)
		p.deadline = at
	}
	p.cancelStop(errors.New("the pod is to end"))
}

// vanish takes that the object is gone: deleted by force.
func (p *pod) vanish() {
	p.mu.Lock()
	p.gone = true
	p.mu.Unlock()
	p.cancelKill(errGone)
	p.cancelStop(errGone)
	p.cancelOver()
}

// run runs the pod until its object is gone or ctx, the agent's life, ends. Nothing of it is left then.
func (p *pod) run(ctx context.Context) {
	defer close(p.done)
	publishing, cancel := context.WithCancel(ctx)
	var publisher sync.WaitGroup
	publisher.Go(func() { p.publish(publishing) })
	if !p.before {
		p.notify()
		p.live()
	}
	<-p.stop.Done() // a pod that has ended stays until someone deletes it
	<-p.over.Done() // and one that ended by its deadline too
	cancel()
	publisher.Wait()
	p.finish(ctx)
}

func hasEnded(obj *v1.Pod) bool {
	return obj.Status.Phase == v1.PodSucceeded || obj.Status.Phase == v1.PodFailed
}

// finish sends the last status and deletes the object.
func (p *pod) finish(ctx context.Context) {
	p.mu.Lock()
	gone := p.gone
	if p.timer != nil {
		p.timer.Stop()
	}
	p.mu.Unlock()
	p.cancelKill(nil)
	if gone || ctx.Err() != nil {
		return
	}
	p.retry(ctx, "send last pod status", func() error { return p.sendStatus(ctx) })
	p.remove(ctx)
}

// live is the pod's life from its network to the end of its last container.
func (p *pod) live() {
	defer func() {
		p.log.Debug("pod ended")
		if err := os.RemoveAll(p.agent.podDir(p.latest().UID)); err != nil {
			p.log.Warn("pod's folder not removed", "err", err)
		}
		if err := pruneLogs(filepath.Join(p.agent.cfg.Dir, "log"), p.agent.logInUse); err != nil && !os.IsNotExist(err) {
			p.log.Warn("old logs not removed", "err", err)
		}
	}()
	defer p.deadlineTimer()()
	if fields := ignored(p.latest()); len(fields) > 0 {
		p.agent.events.Eventf(p.latest(), v1.EventTypeWarning, "FieldsIgnored", "the lab does not know %s", strings.Join(fields, ", "))
	}
	if !p.rec.allDone(p.latest()) && p.setUp() {
		var refresh sync.WaitGroup
		ctx, cancel := context.WithCancel(p.kill)
		refresh.Go(func() { p.refreshVolumes(ctx) })
		p.runContainers()
		cancel()
		refresh.Wait()
	}
	p.change(func(r *record) { r.end() })
	if p.sandbox == nil {
		return
	}
	if err := p.agent.removeSandbox(p.sandbox); err != nil {
		p.log.Warn("pod network not removed", "err", err)
	}
	p.change(func(r *record) { r.sandbox = false })
}

// end makes what still waits ended for good.
func (r *record) end() {
	r.ended = true
	for name, s := range r.containers {
		if s.State.Terminated == nil {
			s.State = v1.ContainerState{Terminated: s.LastTerminationState.Terminated}
			if s.State.Terminated == nil {
				s.State.Terminated = &v1.ContainerStateTerminated{
					ExitCode: 137, Reason: "ContainerStatusUnknown", Message: "the pod ended before the container was started",
				}
			}
		}
		s.Ready, s.Started = false, new(bool)
		r.containers[name] = s
	}
}

// deadlineTimer ends the pod as failed when its activeDeadlineSeconds are over, unless it is stopped before.
func (p *pod) deadlineTimer() (stop func()) {
	obj := p.latest()
	if obj.Spec.ActiveDeadlineSeconds == nil {
		return func() {}
	}
	left := time.Until(p.rec.startTime.Add(time.Duration(*obj.Spec.ActiveDeadlineSeconds) * time.Second))
	t := time.AfterFunc(left, func() {
		p.change(func(r *record) {
			if !r.ended { // it may end as the time is over
				r.reason, r.message = "DeadlineExceeded", "Pod was active on the node longer than the specified deadline"
			}
		})
		p.end(graceOf(obj))
	})
	detach := context.AfterFunc(p.stop, func() { t.Stop() })
	return func() { t.Stop(); detach() }
}

func graceOf(obj *v1.Pod) time.Duration {
	if s := obj.Spec.TerminationGracePeriodSeconds; s != nil {
		return time.Duration(*s) * time.Second
	}
	return 30 * time.Second
}

// setUp makes the network and the volumes; it tries until it succeeds or the pod is to end.
func (p *pod) setUp() bool {
	select {
	case p.agent.starts <- struct{}{}:
		defer func() { <-p.agent.starts }()
	case <-p.stop.Done():
		return false
	}
	p.volumes = &volumes{dir: filepath.Join(p.agent.podDir(p.latest().UID), "volumes"), host: filepath.Join(p.agent.cfg.Dir, "host"), tokens: map[string]token{}}
	return p.persist("FailedCreatePodSandBox", p.makeSandbox) && p.persist("FailedMount", p.syncVolumes)
}

// persist calls fn until it succeeds or the pod is to end. The reason is for the events of failures.
func (p *pod) persist(reason string, fn func() error) bool {
	for wait := firstRetry; p.stop.Err() == nil; wait = min(2*wait, maxRetry) {
		err := fn()
		if err == nil {
			return true
		}
		// The first failure is usual: the API server's authorizers may see the pod a moment later than the agent.
		if wait > firstRetry {
			p.log.Warn("pod not started yet", "reason", reason, "err", err)
			p.agent.events.Event(p.latest(), v1.EventTypeWarning, reason, err.Error())
		}
		sleep(p.stop, wait)
	}
	return false
}

func (p *pod) makeSandbox() error {
	adr, err := p.agent.podNetworks(p.stop)
	if err != nil {
		return fmt.Errorf("wait for the node's podCIDRs: %w", err)
	}
	s, err := p.agent.addSandbox(p.latest(), adr)
	if err != nil {
		return fmt.Errorf("make pod network: %w", err)
	}
	p.sandbox = s
	p.change(func(r *record) { r.sandbox, r.podIPs = true, s.ips })
	return nil
}

func (p *pod) syncVolumes() error {
	obj := withIPs(p.latest(), p.sandbox.ips, p.agent.cfg.NodeIPs)
	return p.volumes.sync(references{p.stop, p.agent.cfg.Client, obj})
}

// refreshVolumes keeps the volumes up to date until ctx ends.
func (p *pod) refreshVolumes(ctx context.Context) {
	for sleep(ctx, volumeRefresh) && p.stop.Err() == nil {
		if err := p.syncVolumes(); err != nil && p.stop.Err() == nil {
			p.log.Warn("volumes not up to date", "err", err)
		}
	}
}

// runContainers runs the init containers in order and then the others, to their end.
func (p *pod) runContainers() {
	obj := p.latest()
	sidecarStop, stopSidecars := context.WithCancel(context.WithoutCancel(p.stop))
	var sidecars, containers sync.WaitGroup
	defer func() { stopSidecars(); sidecars.Wait() }()
	for i := range obj.Spec.InitContainers {
		c := newContainer(p, &obj.Spec.InitContainers[i])
		c.policy = policyOf(obj, c.spec)
		if !isSidecar(c.spec) {
			if !c.run(p.stop, p.kill) {
				return
			}
			continue
		}
		sidecars.Go(func() { c.run(sidecarStop, p.kill) })
		select {
		case <-c.up:
		case <-p.stop.Done():
			return
		}
	}
	if p.stop.Err() != nil {
		return
	}
	p.change(func(r *record) { r.initialized = true })
	for i := range obj.Spec.Containers {
		c := newContainer(p, &obj.Spec.Containers[i])
		containers.Go(func() { c.run(p.stop, p.kill) })
	}
	containers.Wait()
}
