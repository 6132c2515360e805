package cluster

import (
	"errors"
	"fmt"
	"io"
	"os/exec"
	"sync"
	"time"

	"golang.org/x/sys/unix"
	"varco.dev/internal/nettest"
)

// program is one process of the lab that the supervisor starts.
type program struct {
	name   string
	host   string // name of its network namespace
	binary string // empty means the lab's
	args   []string
}

// process is a program that has been started at least once. A process that ends stays ended until someone starts it.
type process struct {
	program
	logPath  string
	ns       *nettest.Namespace
	children *children

	// mu guards the fields below.
	mu      sync.Mutex
	cmd     *exec.Cmd
	done    chan struct{} // closed when cmd has ended
	err     error         // how cmd ended
	stopped bool          // someone asked for the end
	started time.Time
	ended   time.Time
	starts  int
}

// start starts the program, with its output appended to its log.
func (p *process) start() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.running() {
		return fmt.Errorf("%s runs already", p.name)
	}
	log, err := openLog(p.logPath, maxLogSize)
	if err != nil {
		return fmt.Errorf("open log of %s: %w", p.name, err)
	}
	cmd := exec.Command(p.binary, p.args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.WaitDelay = logDelay
	cmd.Dir = "/"
	if err := p.children.start(cmd, p.ns.Start); err != nil {
		return errors.Join(fmt.Errorf("start %s: %w", p.name, err), log.Close())
	}
	p.cmd, p.done, p.err, p.stopped = cmd, make(chan struct{}), nil, false
	p.started = time.Now()
	p.starts++
	go p.wait(cmd, p.done, log)
	return nil
}

func (p *process) wait(cmd *exec.Cmd, done chan struct{}, log io.Closer) {
	err := p.children.wait(cmd)
	_ = log.Close() // after the last word
	p.mu.Lock()
	defer p.mu.Unlock()
	p.err, p.ended = err, time.Now()
	close(done)
}

// running needs mu.
func (p *process) running() bool {
	if p.cmd == nil {
		return false
	}
	select {
	case <-p.done:
		return false
	default:
		return true
	}
}

// ending returns a channel that is closed when the process has ended.
func (p *process) ending() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.done
}

// stop asks the process to end and makes it end after the grace time; 0 means at once. It returns when it has ended.
func (p *process) stop(grace time.Duration) {
	p.mu.Lock()
	cmd, done, running := p.cmd, p.done, p.running()
	p.stopped = true
	p.mu.Unlock()
	if !running {
		return
	}
	if grace > 0 {
		_ = cmd.Process.Signal(unix.SIGTERM) // fails only if it has ended meanwhile
		select {
		case <-done:
		case <-time.After(grace):
		}
	}
	_ = cmd.Process.Kill()
	<-done
}

// signal sends a signal to the process.
func (p *process) signal(sig unix.Signal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		return fmt.Errorf("%s does not run", p.name)
	}
	return p.cmd.Process.Signal(sig)
}

// failure explains why the process is of no use: what happened, and the end of its log.
func (p *process) failure(what string) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if !p.running() {
		what = fmt.Sprintf("ended after %s (%s)", p.ended.Sub(p.started).Round(time.Millisecond), exitText(p.err))
	}
	return fmt.Errorf("%s %s\nthe end of its log, %s:\n%s", p.name, what, p.logPath, tail(p.logPath, failureLines))
}

func exitText(err error) string {
	if err == nil {
		return "exit status 0"
	}
	return err.Error()
}
