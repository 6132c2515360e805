package cluster

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/controlplane"
)

// supervisor holds a lab together: all its processes are its children, and end with it.
type supervisor struct {
	cfg      Config
	layout   controlplane.Layout
	steps    steps
	log      *slog.Logger
	children children
	network  *network
	began    time.Time

	// mu guards processes, which are in the order of their start.
	mu        sync.Mutex
	processes []*process
}

// supervise is the whole life of the first process of a lab's namespaces. It takes over the claim of the folder and
// ends with ctx; its end is the end of everything that runs in the lab.
func supervise(ctx context.Context, dir string, lock, out *os.File) error {
	// A file that nothing refers to is closed some time, and the claim would be lost while the lab lives.
	defer lock.Close()
	// What the lab runs must not have these files: a process that outlived the supervisor would hold the claim.
	unix.CloseOnExec(int(lock.Fd()))
	unix.CloseOnExec(int(out.Fd()))
	cfg, err := loadConfig(dir)
	if err != nil {
		return err
	}
	if os.Getpid() != 1 {
		return errors.New("supervise is not for people; `varco-lab up` starts it")
	}
	id, err := ownIdentity()
	if err != nil {
		return fmt.Errorf("find out the process id on the host: %w", err)
	}
	if err := id.write(lock); err != nil {
		return fmt.Errorf("write process id: %w", err)
	}
	s := &supervisor{cfg: cfg, began: time.Now(), steps: newSteps(out), log: slog.New(slog.NewTextHandler(os.Stderr, nil))}
	return s.run(ctx)
}

func (s *supervisor) run(ctx context.Context) error {
	if err := s.mount(); err != nil {
		return err
	}
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return fmt.Errorf("listen for the API server's clients: %w", err)
	}
	s.layout = s.cfg.layout(listener.Addr().(*net.TCPAddr).Port)
	// The tasks end after the processes, which need them.
	tasks := s.startTasks(context.WithoutCancel(ctx))
	defer tasks.end()
	tasks.run("orphans", s.children.Run)
	defer s.stopAll()
	start, cancel := context.WithTimeoutCause(ctx, s.cfg.Timeout, fmt.Errorf("not ready within %s", s.cfg.Timeout))
	defer cancel()
	if err := s.bringUp(start, tasks, listener); err != nil {
		return err
	}
	s.steps.tell(Step{Title: upTitle, State: Done})
	s.log.Info("the lab is up")
	<-ctx.Done()
	s.log.Info("the lab ends")
	return nil
}

// mount gives the supervisor's mount namespace, which still has the host's mounts, what the lab adds to them. Mounts
// of the host come and go here too, but nothing goes from here to the host.
func (s *supervisor) mount() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("separate mounts from the host: %w", err)
	}
	if err := unix.Mount("proc", "/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
		return fmt.Errorf("mount /proc of the lab: %w", err)
	}
	dir := filepath.Join(s.cfg.Dir, netnsDir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := unix.Mount("varco-lab", dir, "tmpfs", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, "mode=0755"); err != nil {
		return fmt.Errorf("mount %s: %w", dir, err)
	}
	return nil
}

// add makes a process of the program, ready to be started.
func (s *supervisor) add(p program) (*process, error) {
	ns, err := s.network.namespace(p.host)
	if err != nil {
		return nil, fmt.Errorf("find where %s runs: %w", p.name, err)
	}
	p.binary = cmp.Or(p.binary, s.cfg.Binary)
	proc := &process{program: p, logPath: logPath(s.cfg.Dir, p.name), ns: ns, children: &s.children}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.processes = append(s.processes, proc)
	return proc, nil
}

// all returns the processes in the order of their start.
func (s *supervisor) all() []*process {
	s.mu.Lock()
	defer s.mu.Unlock()
	return append([]*process{}, s.processes...)
}

// find returns the process of that name.
func (s *supervisor) find(name string) (*process, bool) {
	for _, p := range s.all() {
		if p.name == name {
			return p, true
		}
	}
	return nil, false
}

// stopAll gives the node agents time to end their pods. The control plane gets none: its data ends with the lab, and an
// API server would wait for its clients.
func (s *supervisor) stopAll() {
	var stopping sync.WaitGroup
	for _, p := range s.all() {
		if p.args[0] == nodeCommand {
			stopping.Go(func() { p.stop(nodeGrace) })
		}
	}
	stopping.Wait()
	for _, p := range s.all() {
		stopping.Go(func() { p.stop(0) })
	}
	stopping.Wait()
}

// tasks are the goroutines of the supervisor.
type tasks struct {
	ctx    context.Context
	cancel context.CancelFunc
	wait   sync.WaitGroup
	log    *slog.Logger
}

func (s *supervisor) startTasks(ctx context.Context) *tasks {
	t := &tasks{log: s.log}
	t.ctx, t.cancel = context.WithCancel(ctx)
	return t
}

// run runs a task until the supervisor ends. A task that fails is told in the log; the rest of the lab goes on.
func (t *tasks) run(name string, task func(context.Context) error) {
	t.wait.Go(func() {
		if err := task(t.ctx); err != nil {
			t.log.Error("a task of the supervisor failed", "task", name, "err", err)
		}
	})
}

func (t *tasks) end() {
	t.cancel()
	t.wait.Wait()
}

// dialFrom returns a dialler from one of the lab's network namespaces.
func dialFrom(ns *nettest.Namespace) controlplane.Dial { return ns.DialContext }
