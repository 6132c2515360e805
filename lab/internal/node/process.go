package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"syscall"
	"time"

	"github.com/vishvananda/netns"
	"golang.org/x/sys/unix"
	utilexec "k8s.io/utils/exec"
	"varco.dev/internal/nettest"
)

// processSpec says how to run one process of a container.
type processSpec struct {
	Argv   []string // the first is a path in the container
	Env    []string
	Dir    string
	Root   string // folder of the node that becomes the root; empty: Enter joins one
	PIDs   pidSpace
	May    security
	Netns  *nettest.Namespace
	Stdin  io.Reader
	Stdout io.Writer
	Stderr io.Writer
	// Terminal says that Stdin is a terminal, which becomes the process's controlling one.
	Terminal bool
	// Enter runs on the thread that the process is started from, in the network namespace, to put it in others.
	Enter func() error
}

// pidSpace is the PID namespace of a process.
type pidSpace int

// A process has a PID namespace of its own, that of the node, or one that Enter joined.
const (
	ownPIDs pidSpace = iota
	nodePIDs
	joinedPIDs
)

// process is a running process. It is usually the first of a PID namespace, so
// that all that it started ends with it.
type process struct {
	cmd     *exec.Cmd
	group   bool
	started time.Time
	done    chan struct{} // closed when it has ended; the fields below are set then
	ended   time.Time
	state   syscall.WaitStatus
}

// start runs a process. It has a thread of this process for its life: a thread's namespaces are what a child gets, and
// the child is killed when its parent thread ends, so no process outlives the agent.
func start(s processSpec) (*process, error) {
	p := &process{done: make(chan struct{}), group: s.PIDs != ownPIDs}
	p.cmd = &exec.Cmd{
		Path: s.Argv[0], Args: s.Argv, Env: s.Env, Dir: s.Dir,
		Stdin: s.Stdin, Stdout: s.Stdout, Stderr: s.Stderr,
		// What a dead container's pipe still holds is read, but a leaked end of it must not hold the worker.
		WaitDelay:   time.Second,
		SysProcAttr: &syscall.SysProcAttr{Setsid: true, Setctty: s.Terminal},
	}
	finish := func(err error) error { return err }
	if s.Root != "" {
		pipes, err := throughInit(p.cmd, initSpec{
			Root: s.Root, Dir: s.Dir, HostProc: s.PIDs == nodePIDs, Argv: s.Argv, Env: s.Env, Security: s.May,
		})
		if err != nil {
			return nil, err
		}
		finish = pipes.finish
	} else {
		p.cmd.SysProcAttr.Credential = &syscall.Credential{Uid: s.May.UID, Gid: s.May.GID, Groups: s.May.Groups}
	}
	if s.PIDs == ownPIDs {
		p.cmd.SysProcAttr.Cloneflags = syscall.CLONE_NEWPID
	}
	// A process in a namespace that it joined ends with the namespace. It cannot see that its parent lives and would
	// kill itself.
	if s.PIDs != joinedPIDs {
		p.cmd.SysProcAttr.Pdeathsig = syscall.SIGKILL
	}
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		err := enter(s)
		if err == nil {
			err = p.cmd.Start()
		}
		p.started = time.Now()
		run := err == nil
		err = finish(err)
		if err != nil && run {
			_ = p.cmd.Process.Kill()
			_ = p.cmd.Wait()
		}
		started <- err
		if err == nil {
			p.wait()
		}
	}()
	return p, <-started
}

func enter(s processSpec) error {
	if err := unix.Unshare(unix.CLONE_FS); err != nil {
		return fmt.Errorf("leave the agent's file system: %w", err)
	}
	if err := netns.Set(netns.NsHandle(s.Netns.FD())); err != nil {
		return fmt.Errorf("enter network namespace %s: %w", s.Netns.Name, err)
	}
	if err := s.Enter(); err != nil {
		return err
	}
	if s.Root != "" {
		return nil // the container's first process must mount before it is limited
	}
	return s.May.limit()
}

func (p *process) wait() {
	_ = p.cmd.Wait() // what it says is in ProcessState
	p.state = p.cmd.ProcessState.Sys().(syscall.WaitStatus)
	p.ended = time.Now()
	close(p.done)
}

// exitCode is the code of a process that has ended; one ended by signal N has 128+N, as with container runtimes.
func (p *process) exitCode() int32 {
	if p.state.Signaled() {
		return 128 + int32(p.state.Signal())
	}
	return int32(p.state.ExitStatus())
}

// terminate asks the process to end.
func (p *process) terminate() { _ = p.cmd.Process.Signal(syscall.SIGTERM) }

// kill ends the process, and with it its PID namespace or, if it has none of its own, its process group.
func (p *process) kill() {
	select {
	case <-p.done:
		return
	default:
	}
	if p.group {
		_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	}
	_ = p.cmd.Process.Kill()
}

// join returns an Enter function that joins the namespaces of a running process, and with its mounts its root.
func (p *process) join() func() error {
	return func() error {
		kinds := []string{"pid", "uts", "mnt"}
		files := map[string]*os.File{}
		for _, kind := range kinds { // all before the first is joined: with the mounts, /proc is another
			f, err := os.Open(fmt.Sprintf("/proc/%d/ns/%s", p.cmd.Process.Pid, kind))
			if err != nil {
				return fmt.Errorf("find the container's %s namespace: %w", kind, err)
			}
			defer f.Close()
			files[kind] = f
		}
		for _, kind := range kinds {
			if err := unix.Setns(int(files[kind].Fd()), 0); err != nil {
				return fmt.Errorf("enter the container's %s namespace: %w", kind, err)
			}
		}
		return nil
	}
}

// errExit is the code that a command in a container ended with, other than 0.
type errExit struct{ code int32 }

var _ utilexec.ExitError = errExit{} // by which kubectl exec gets the code

func (e errExit) Error() string   { return fmt.Sprintf("command ended with exit code %d", e.code) }
func (e errExit) String() string  { return e.Error() }
func (e errExit) Exited() bool    { return true }
func (e errExit) ExitStatus() int { return int(e.code) }

// run runs a process to its end and kills it when ctx ends. The error is an errExit if it ran and failed.
func run(ctx context.Context, s processSpec) error {
	p, err := start(s)
	if err != nil {
		return err
	}
	select {
	case <-p.done:
	case <-ctx.Done():
		p.kill()
		<-p.done
		return errors.Join(ctx.Err(), errors.New("command took too long and was killed"))
	}
	if c := p.exitCode(); c != 0 {
		return errExit{c}
	}
	return nil
}
