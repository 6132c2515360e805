package contender

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"strings"
	"syscall"
	"time"

	"varco.dev/internal/nettest"
)

// Contender is a program under test.
type Contender struct {
	// Name in tables and plots.
	Name string
	// Path of the program, and its arguments.
	Path string
	Args []string
}

// Process is a contender that runs.
type Process struct {
	// Started is just before the process was made.
	Started time.Time
	name    string
	log     string
	cmd     *exec.Cmd
	ended   chan struct{}
	err     error // why it ended; to be read after ended
}

// grace is how long a contender may take to end by itself.
const grace = 5 * time.Second

// Start runs the contender in the namespace until Stop, or until this process ends; without a namespace it runs in that of
// this process. What it writes is added to a file.
func Start(ns *nettest.Namespace, c Contender, log string) (*Process, error) {
	out, err := os.OpenFile(log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, fmt.Errorf("open log of %s: %w", c.Name, err)
	}
	defer out.Close()
	p := &Process{name: c.Name, log: log, ended: make(chan struct{}), cmd: exec.Command(c.Path, c.Args...)}
	p.cmd.Stdout, p.cmd.Stderr = out, out
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	started := make(chan error, 1)
	go p.run(ns, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Name, err)
	}
	return p, nil
}

// run waits on the thread that has started the process: the kernel sends the signal of Pdeathsig when that thread ends.
func (p *Process) run(ns *nettest.Namespace, started chan<- error) {
	defer close(p.ended)
	do := here
	if ns != nil {
		do = ns.Do
	}
	err := do(func() error {
		p.Started = time.Now()
		if err := p.cmd.Start(); err != nil {
			return err
		}
		started <- nil
		p.err = p.cmd.Wait()
		return nil
	})
	if err != nil {
		started <- err
	}
}

// here runs fn on a thread that nothing else can end.
func here(fn func() error) error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	return fn()
}

// Check returns an error if the process has ended.
func (p *Process) Check() error {
	select {
	case <-p.ended:
		return fmt.Errorf("%s ended by itself: %v; it wrote:\n%s", p.name, p.err, p.lastLines())
	default:
		return nil
	}
}

// Stop ends the process and waits for its end.
func (p *Process) Stop() {
	ctx, cancel := context.WithTimeout(context.Background(), grace)
	defer cancel()
	_ = p.cmd.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-p.ended:
	case <-ctx.Done():
		_ = p.cmd.Process.Kill() // one that has ended meanwhile is what is wanted
		<-p.ended
	}
}

// shown is how many lines of a log an error quotes.
const shown = 10

func (p *Process) lastLines() string {
	b, err := os.ReadFile(p.log)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(b)), "\n")
	return strings.Join(lines[max(0, len(lines)-shown):], "\n")
}
