package node

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"syscall"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"
)

// File descriptors of a container's first process: what it is to do, and where it says why it could not.
const (
	initSpecFD  = 3
	initErrorFD = 4
)

// initCommand is how this program is started as the first process of a container, to finish its namespaces from
// inside and become the container's program: a /proc shows the PID namespace of the process that mounts it.
var initCommand = [...]string{"varco-lab", "node", "container-init"}

// initSpec is what the first process of a container is to do.
type initSpec struct {
	Root     string // folder that becomes the root
	Dir      string // in it, to start the program in
	HostProc bool   // /proc is there already
	Argv     []string
	Env      []string
	Security security
}

func initCmd() *cobra.Command {
	return &cobra.Command{
		Use:    "container-init",
		Short:  "Become the program of a container",
		Long:   "container-init is the first process of a container. The node agent starts it; a person cannot.",
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE:   func(*cobra.Command, []string) error { return containerInit() },
	}
}

// containerInit becomes the container's program and does not return then. If that fails it tells the agent.
func containerInit() error {
	runtime.LockOSThread() // capabilities are a thread's; the one that calls exec counts
	unix.CloseOnExec(initErrorFD)
	err := func() error {
		f := os.NewFile(initSpecFD, "spec")
		var s initSpec
		if err := errors.Join(json.NewDecoder(f).Decode(&s), f.Close()); err != nil {
			return fmt.Errorf("read what to do: %w", err)
		}
		return s.become()
	}()
	_, _ = unix.Write(initErrorFD, []byte(err.Error()))
	return err
}

func (s initSpec) become() error {
	if err := s.mountProc(); err != nil {
		return err
	}
	if err := pivot(s.Root); err != nil {
		return fmt.Errorf("enter the container's root: %w", err)
	}
	if err := os.Chdir(s.Dir); err != nil {
		return fmt.Errorf("enter working directory: %w", err)
	}
	if err := s.Security.limit(); err != nil {
		return err
	}
	if err := s.Security.becomeUser(); err != nil {
		return fmt.Errorf("become user %d: %w", s.Security.UID, err)
	}
	// Another user's process has lost it.
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGKILL), 0, 0, 0); err != nil {
		return fmt.Errorf("ask to end with the agent: %w", err)
	}
	return fmt.Errorf("start %s: %w", s.Argv[0], unix.Exec(s.Argv[0], s.Argv, s.Env))
}

func (s security) becomeUser() error {
	groups := []int{}
	for _, g := range s.Groups {
		groups = append(groups, int(g))
	}
	if err := unix.Setgroups(groups); err != nil {
		return err
	}
	if err := unix.Setresgid(int(s.GID), int(s.GID), int(s.GID)); err != nil {
		return err
	}
	return unix.Setresuid(int(s.UID), int(s.UID), int(s.UID))
}

// Paths of /proc that an unprivileged container cannot write, and those that it cannot see; containerd's.
var (
	readOnlyPaths = [...]string{"/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"}
	maskedPaths   = [...]string{
		"/proc/acpi", "/proc/kcore", "/proc/keys", "/proc/latency_stats", "/proc/timer_list", "/proc/timer_stats",
		"/proc/sched_debug", "/proc/scsi", "/sys/firmware",
	}
)

func (s initSpec) mountProc() error {
	if !s.HostProc {
		if err := unix.Mount("proc", s.Root+"/proc", "proc", unix.MS_NOSUID|unix.MS_NODEV|unix.MS_NOEXEC, ""); err != nil {
			return fmt.Errorf("mount proc: %w", err)
		}
	}
	if s.Security.Privileged {
		return nil
	}
	for _, path := range readOnlyPaths {
		if err := bind(s.Root+path, s.Root+path, true); err != nil && !errors.Is(err, unix.ENOENT) {
			return fmt.Errorf("make %s read-only: %w", path, err)
		}
	}
	for _, path := range maskedPaths {
		info, err := os.Stat(s.Root + path)
		switch {
		case os.IsNotExist(err):
		case err == nil && info.IsDir():
			err = unix.Mount("tmpfs", s.Root+path, "tmpfs", unix.MS_RDONLY, "")
		case err == nil:
			err = bind(s.Root+"/dev/null", s.Root+path, false)
		}
		if err != nil && !os.IsNotExist(err) {
			return fmt.Errorf("hide %s: %w", path, err)
		}
	}
	return nil
}

// pivot makes a mount the root of the calling process's mount namespace, so that there is nothing above it to escape to.
func pivot(root string) error {
	if err := os.Chdir(root); err != nil {
		return err
	}
	err := unix.PivotRoot(".", ".") // the old root lies over the new one then
	if errors.Is(err, unix.EINVAL) {
		// The machine's root is the initial file system, which cannot be left: cover it.
		if err := unix.Mount(root, "/", "", unix.MS_MOVE, ""); err != nil {
			return err
		}
		return unix.Chroot(".")
	}
	if err != nil {
		return err
	}
	if err := unix.Unmount(".", unix.MNT_DETACH); err != nil {
		return err
	}
	return os.Chdir("/")
}

// initPipes are the agent's ends of what a container's first process reads and writes.
type initPipes struct {
	spec   initSpec
	theirs []*os.File
	in     *os.File // to write the spec to
	out    *os.File // has the error; it ends when the program has been started
}

// throughInit has a command start as this program, which becomes what the spec says.
func throughInit(cmd *exec.Cmd, spec initSpec) (*initPipes, error) {
	specR, specW, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	errR, errW, err := os.Pipe()
	if err != nil {
		specR.Close()
		specW.Close()
		return nil, err
	}
	cmd.Path, cmd.Args, cmd.Env, cmd.Dir = "/proc/self/exe", slices.Clone(initCommand[:]), []string{}, "/"
	cmd.ExtraFiles = []*os.File{specR, errW}
	return &initPipes{spec: spec, theirs: cmd.ExtraFiles, in: specW, out: errR}, nil
}

// finish returns once the container's program has been started, or why it was not. started is the error of the start of
// its first process.
func (p *initPipes) finish(started error) error {
	for _, f := range p.theirs {
		f.Close()
	}
	defer p.out.Close()
	if started != nil {
		return errors.Join(started, p.in.Close())
	}
	err := errors.Join(json.NewEncoder(p.in).Encode(p.spec), p.in.Close())
	b := make([]byte, 4096)
	n, _ := p.out.Read(b) // nothing: it was started, or killed
	if n > 0 {
		return errors.New(string(b[:n]))
	}
	if errors.Is(err, syscall.EPIPE) {
		return nil // killed, which its exit code tells
	}
	return err
}
