package node

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// container runs one container of a pod, again and again as its policy says.
type container struct {
	pod    *pod
	spec   *v1.Container
	policy v1.RestartPolicy
	up     chan struct{} // closed when the container has started for the first time
	once   sync.Once
}

// runningContainer is one run of a container.
type runningContainer struct {
	*process
	may       security
	env       []string
	image     []string // the program that stands for the image
	log       *logWriter
	std       *streams
	unhealthy chan error // takes the first reason to end the process
}

func newContainer(p *pod, spec *v1.Container) *container {
	return &container{pod: p, spec: spec, policy: p.latest().Spec.RestartPolicy, up: make(chan struct{})}
}

// set changes the container's status.
func (c *container) set(fn func(*v1.ContainerStatus)) {
	c.pod.change(func(r *record) {
		s := r.containers[c.spec.Name]
		fn(&s)
		r.containers[c.spec.Name] = s
	})
}

func (c *container) waits(reason, message string) {
	c.set(func(s *v1.ContainerStatus) {
		if s.State.Terminated != nil {
			s.LastTerminationState = s.State
		}
		s.State = v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason, Message: message}}
	})
}

func (c *container) event(kind, reason, format string, args ...any) {
	c.pod.agent.events.Eventf(c.pod.latest(), kind, reason, format, args...)
}

// restarts says whether a container that ended is started again.
func restarts(policy v1.RestartPolicy, exitCode int32) bool {
	switch policy {
	case v1.RestartPolicyNever:
		return false
	case v1.RestartPolicyOnFailure:
		return exitCode != 0
	}
	return true
}

// run runs the container until it has ended for good or stop ends; it is killed when kill ends. It returns whether the
// last run succeeded.
func (c *container) run(stop, kill context.Context) bool {
	var b backoff
	if t := c.endedBefore(); t != nil {
		return t.ExitCode == 0
	}
	for stop.Err() == nil {
		spec, err := c.prepare(stop)
		if err != nil {
			return false // stop ended
		}
		began := time.Now()
		code := c.runOnce(stop, kill, spec)
		if stop.Err() != nil || !restarts(c.policy, code) {
			return code == 0
		}
		if d := b.after(time.Since(began)); d > 0 {
			msg := fmt.Sprintf("back-off %s restarting failed container=%s pod=%s", d, c.spec.Name, c.pod.latest().Name)
			c.waits("CrashLoopBackOff", msg)
			c.event(v1.EventTypeWarning, "BackOff", "Back-off restarting failed container %s", c.spec.Name)
			if !sleep(stop, d) {
				return false
			}
		}
		c.set(func(s *v1.ContainerStatus) { s.RestartCount++ })
	}
	return false
}

// endedBefore returns how the container ended under an agent before this one if it is not to be started again.
func (c *container) endedBefore() *v1.ContainerStateTerminated {
	c.pod.mu.Lock()
	defer c.pod.mu.Unlock()
	return c.pod.rec.containers[c.spec.Name].State.Terminated
}

// runOnce runs the container's process to its end and returns the exit code.
func (c *container) runOnce(stop, kill context.Context, spec *startSpec) int32 {
	began := metav1.Now().Rfc3339Copy()
	r, err := c.start(spec)
	if err != nil {
		c.event(v1.EventTypeWarning, "Failed", "Error: %v", err)
		c.terminated(&v1.ContainerStateTerminated{
			ExitCode: 128, Reason: "StartError", Message: err.Error(), StartedAt: began, FinishedAt: began,
		})
		return 128
	}
	c.pod.setRunning(c.spec.Name, r)
	why := c.supervise(stop, kill, r)
	c.pod.setRunning(c.spec.Name, nil)
	r.std.end()
	r.log.Close()
	t := &v1.ContainerStateTerminated{
		ExitCode: r.exitCode(), Reason: "Completed", StartedAt: began, FinishedAt: metav1.NewTime(r.ended).Rfc3339Copy(),
	}
	if t.ExitCode != 0 {
		t.Reason = "Error"
	}
	if why != nil {
		t.Message = why.Error()
	}
	c.terminated(t)
	return t.ExitCode
}

func (c *container) terminated(t *v1.ContainerStateTerminated) {
	c.set(func(s *v1.ContainerStatus) {
		t.ContainerID = s.ContainerID
		if s.State.Terminated != nil {
			s.LastTerminationState = s.State
		}
		s.State = v1.ContainerState{Terminated: t}
		s.Ready, s.Started = false, new(bool)
	})
}

// startSpec is what a run needs, found before it.
type startSpec struct {
	argv   []string
	env    []string
	dir    string
	image  []string
	mounts []mount
	may    security
}

// prepare finds what the container needs; it tries until it has it. The error is that ctx ended.
func (c *container) prepare(ctx context.Context) (*startSpec, error) {
	image, err := imageOf(c.pod.agent.cfg.Images, c.spec.Image)
	if err != nil {
		c.waits("ErrImagePull", err.Error())
		c.event(v1.EventTypeWarning, "Failed", "Failed to pull image %q: %v", c.spec.Image, err)
		sleep(ctx, 2*firstBackoff)
		c.waits("ImagePullBackOff", err.Error())
		<-ctx.Done() // the images of an agent do not change
		return nil, ctx.Err()
	}
	for wait := firstBackoff; ; wait = min(2*wait, maxBackoff) {
		s, err := c.resolve(ctx, image)
		if err == nil {
			return s, nil
		}
		c.waits("CreateContainerConfigError", err.Error())
		c.event(v1.EventTypeWarning, "Failed", "Error: %v", err)
		if !sleep(ctx, wait) {
			return nil, ctx.Err()
		}
	}
}

func (c *container) resolve(ctx context.Context, image []string) (*startSpec, error) {
	p := c.pod
	obj := withIPs(p.latest(), p.sandbox.ips, p.agent.cfg.NodeIPs)
	base, err := apiServerEnv(ctx, p.agent.cfg.Client)
	if err != nil {
		return nil, err
	}
	base["PATH"] = searchPath
	base["HOSTNAME"] = p.hostname()
	base["HOME"] = "/"
	vars, err := envOf(c.spec, environment{obj, references{ctx, p.agent.cfg.Client, obj}, base})
	if err != nil {
		return nil, err
	}
	exp := func(s string) string {
		return expand(s, func(n string) (string, bool) { v, ok := vars[n]; return v, ok })
	}
	s := &startSpec{argv: commandOf(image, c.spec, exp), image: image, dir: c.spec.WorkingDir}
	for k, v := range vars {
		s.env = append(s.env, k+"="+v)
	}
	s.argv[0] = lookPath(s.argv[0], vars["PATH"])
	if s.dir == "" {
		s.dir = "/"
	}
	if s.may, err = securityOf(obj, c.spec); err != nil {
		return nil, err
	}
	s.mounts, err = p.volumes.mountsOf(obj, c.spec, exp)
	if isPrivate(image[0]) {
		s.mounts = append(s.mounts, mount{Source: image[0], Target: image[0], ReadOnly: true})
	}
	return s, err
}

const searchPath = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"

// lookPath finds a program in a list of folders; containers see the same folders as the node.
func lookPath(name, path string) string {
	if strings.Contains(name, "/") {
		return name
	}
	for _, dir := range filepath.SplitList(path) {
		f := filepath.Join(dir, name)
		if info, err := os.Stat(f); err == nil && !info.IsDir() && info.Mode()&0o111 != 0 {
			return f
		}
	}
	return name
}

// hostname is what the pod's programs see as the machine's name.
func (p *pod) hostname() string {
	obj := p.latest()
	switch {
	case obj.Spec.HostNetwork:
		return p.agent.cfg.Name
	case obj.Spec.Hostname != "":
		return hostLabel(obj.Spec.Hostname)
	}
	return hostLabel(obj.Name)
}

// hostLabel cuts a name to what the kernel takes as a host name, as the kubelet does.
func hostLabel(name string) string {
	const most = 63
	if len(name) <= most {
		return name
	}
	return strings.TrimRight(name[:most], "-.")
}

// start starts the container's process.
func (c *container) start(s *startSpec) (*runningContainer, error) {
	p := c.pod
	obj := p.latest()
	dir := filepath.Join(p.agent.podDir(obj.UID), "root", c.spec.Name)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return nil, fmt.Errorf("make container folder: %w", err)
	}
	log, err := newLog(p.agent.logFile(obj, c.spec.Name))
	if err != nil {
		return nil, err
	}
	std, err := openStreams(c.spec, log)
	if err != nil {
		return nil, errors.Join(err, log.Close())
	}
	env := s.env
	if c.spec.TTY {
		env = append(slices.Clone(env), "TERM=xterm")
	}
	root := rootSpec{Dir: dir, Hostname: p.hostname(), Hide: p.agent.cfg.NetnsDir, Mounts: s.mounts, May: s.may}
	pids := ownPIDs
	if obj.Spec.HostPID {
		root.HostProc = true
		pids = nodePIDs
	}
	spec := processSpec{
		Argv: s.argv, Env: env, Dir: s.dir, Root: dir, PIDs: pids, May: s.may, Netns: p.sandbox.ns, Enter: root.build,
	}
	std.give(&spec)
	proc, err := start(spec)
	std.given()
	if err != nil {
		std.end()
		return nil, errors.Join(err, log.Close())
	}
	return &runningContainer{
		process: proc, may: s.may, env: s.env, image: s.image, log: log, std: std, unhealthy: make(chan error, 1),
	}, nil
}

// setRunning keeps the run of a container for exec and attach; nil if there is none.
func (p *pod) setRunning(name string, r *runningContainer) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r == nil {
		delete(p.running, name)
	} else {
		p.running[name] = r
	}
}
