package node

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// minAfterHook is how long a process has after SIGTERM if its preStop hook used up the grace period, as in the kubelet.
const minAfterHook = 2 * time.Second

// supervise watches a run until its process has ended, and ends it when stop ends or a probe says so. It returns why
// it ended the process, nil if it did not or the pod was to end.
func (c *container) supervise(stop, kill context.Context, r *runningContainer) (why error) {
	running, ended := context.WithCancel(context.Background())
	alive, ending := context.WithCancel(running)
	detach := context.AfterFunc(stop, ending)
	var probes sync.WaitGroup
	defer func() { detach(); ending(); ended(); probes.Wait() }()

	c.event(v1.EventTypeNormal, "Started", "Container started")
	if err := c.postStart(alive, r); err != nil {
		c.event(v1.EventTypeWarning, "FailedPostStartHook", "PostStartHook failed: %v", err)
		r.fail(fmt.Errorf("post-start hook failed: %w", err))
	}
	c.isRunning()
	probes.Go(func() { c.probe(alive, running, r) })
	select {
	case <-r.done:
	case <-stop.Done():
		c.event(v1.EventTypeNormal, "Killing", "Stopping container %s", c.spec.Name)
		c.end(kill, r)
	case why = <-r.unhealthy:
		c.event(v1.EventTypeNormal, "Killing", "Container %s: %v, will be restarted", c.spec.Name, why)
		ctx, cancel := context.WithTimeoutCause(kill, c.probeGrace(), errGrace)
		defer cancel()
		c.end(ctx, r)
	}
	return why
}

// isRunning reports a container that runs; it is ready unless a probe has a say in that.
func (c *container) isRunning() {
	started := c.spec.StartupProbe == nil
	uid := c.pod.latest().UID
	c.set(func(s *v1.ContainerStatus) {
		if s.State.Terminated != nil {
			s.LastTerminationState = s.State
		}
		s.State = v1.ContainerState{Running: &v1.ContainerStateRunning{StartedAt: metav1.Now().Rfc3339Copy()}}
		s.ContainerID = fmt.Sprintf("varco-lab://%s-%s-%d", uid, c.spec.Name, s.RestartCount)
		s.ImageID = s.Image
		s.Started = &started
		s.Ready = started && c.spec.ReadinessProbe == nil
	})
	if started {
		c.once.Do(func() { close(c.up) })
	}
}

// probeGrace is the grace period of a container that a probe ends.
func (c *container) probeGrace() time.Duration {
	for _, p := range []*v1.Probe{c.spec.LivenessProbe, c.spec.StartupProbe} {
		if p != nil && p.TerminationGracePeriodSeconds != nil {
			return time.Duration(*p.TerminationGracePeriodSeconds) * time.Second
		}
	}
	return graceOf(c.pod.latest())
}

// probe runs the container's probes: the startup probe until it succeeds, then the liveness probe while alive and the
// readiness probe while running, so also while the container is being ended. It returns when all have ended.
func (c *container) probe(alive, running context.Context, r *runningContainer) {
	p := &prober{dial: c.pod.agent.cfg.Namespace.DialContext, ip: c.pod.sandbox.ips[0], spec: c.spec,
		exec: func(ctx context.Context, argv []string) error { return c.exec(ctx, r, argv) }}
	if !c.awaitStartup(alive, p, r) {
		return
	}
	var wg sync.WaitGroup
	defer wg.Wait()
	if probe := c.spec.LivenessProbe; probe != nil {
		wg.Go(func() {
			p.watch(alive, probe, func(err error) {
				if err != nil {
					c.unhealthy("Liveness", err)
				}
				if err != nil && !errors.Is(err, errGRPC) {
					r.fail(errors.New("failed liveness probe"))
				}
			})
		})
	}
	if probe := c.spec.ReadinessProbe; probe != nil {
		wg.Go(func() {
			p.watchStart(running, probe, func(err error) {
				if err != nil {
					c.unhealthy("Readiness", err)
				}
				c.set(func(s *v1.ContainerStatus) { s.Ready = err == nil && s.State.Running != nil })
			})
		})
	}
}

func (c *container) awaitStartup(alive context.Context, p *prober, r *runningContainer) bool {
	if c.spec.StartupProbe == nil {
		return true
	}
	ctx, cancel := context.WithCancel(alive)
	defer cancel()
	ok := false
	p.watchStart(ctx, c.spec.StartupProbe, func(err error) {
		if err != nil {
			c.unhealthy("Startup", err)
			r.fail(errors.New("failed startup probe"))
			return
		}
		ok = true
		cancel()
	})
	if ok {
		c.set(func(s *v1.ContainerStatus) {
			yes := true
			s.Started, s.Ready = &yes, c.spec.ReadinessProbe == nil
		})
		c.once.Do(func() { close(c.up) })
	}
	return ok
}

func (c *container) unhealthy(probe string, err error) {
	if errors.Is(err, errGRPC) {
		c.event(v1.EventTypeWarning, "ProbeWarning", "%s probe: %v", probe, err)
		return
	}
	c.event(v1.EventTypeWarning, "Unhealthy", "%s probe failed: %v", probe, err)
}

// fail gives a reason to end the process; only the first counts.
func (r *runningContainer) fail(err error) {
	select {
	case r.unhealthy <- err:
	default:
	}
}

// end ends a process gracefully: preStop hook, SIGTERM, and SIGKILL when kill ends.
func (c *container) end(kill context.Context, r *runningContainer) {
	if h := c.spec.Lifecycle; h != nil && h.PreStop != nil {
		if err := c.hook(kill, r, h.PreStop); err != nil {
			c.event(v1.EventTypeWarning, "FailedPreStopHook", "PreStopHook failed: %v", err)
		}
		if errors.Is(context.Cause(kill), errGrace) {
			var cancel context.CancelFunc
			kill, cancel = context.WithTimeout(context.WithoutCancel(kill), minAfterHook)
			defer cancel()
		}
	}
	r.terminate()
	select {
	case <-r.done:
	case <-kill.Done():
		r.kill()
		<-r.done
	}
}

func (c *container) postStart(ctx context.Context, r *runningContainer) error {
	if c.spec.Lifecycle == nil || c.spec.Lifecycle.PostStart == nil {
		return nil
	}
	return c.hook(ctx, r, c.spec.Lifecycle.PostStart)
}

// hook runs a lifecycle hook until it is done, the process has ended or ctx ends.
func (c *container) hook(ctx context.Context, r *runningContainer, h *v1.LifecycleHandler) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	go func() {
		select {
		case <-r.done:
			cancel()
		case <-ctx.Done():
		}
	}()
	switch {
	case h.Exec != nil:
		return c.exec(ctx, r, h.Exec.Command)
	case h.HTTPGet != nil:
		p := &prober{dial: c.pod.agent.cfg.Namespace.DialContext, ip: c.pod.sandbox.ips[0], spec: c.spec}
		return p.httpGet(ctx, h.HTTPGet)
	case h.Sleep != nil:
		sleep(ctx, time.Duration(h.Sleep.Seconds)*time.Second)
		return nil
	}
	return errors.New("the lab knows exec, httpGet and sleep hooks only")
}

// exec runs a command in the container, for probes and hooks.
func (c *container) exec(ctx context.Context, r *runningContainer, argv []string) error {
	return run(ctx, r.command(argv, c.pod))
}

// command says how to run a command beside the container's process.
func (r *runningContainer) command(argv []string, p *pod) processSpec {
	argv = append([]string(nil), argv...)
	argv[0] = lookPath(programOf(r.image, argv[0]), searchPath)
	pids := joinedPIDs
	if r.group {
		pids = nodePIDs
	}
	return processSpec{
		Argv: argv, Env: r.env, Dir: "/", PIDs: pids, May: r.may, Netns: p.sandbox.ns, Enter: r.join(),
	}
}
