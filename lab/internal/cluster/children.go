package cluster

import (
	"context"
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// children are the processes that the supervisor started itself. As the first process of its PID namespace it also
// inherits those whose parents died, and must collect them without taking a child away from the one who waits for it.
type children struct {
	// mu guards own. It is held while a process starts, so that none is collected before it is known.
	mu  sync.Mutex
	own map[int]bool
}

// start starts cmd by calling start, which is cmd.Start in some namespace, and remembers it as waited for.
func (c *children) start(cmd *exec.Cmd, start func(*exec.Cmd) error) error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if err := start(cmd); err != nil {
		return err
	}
	if c.own == nil {
		c.own = make(map[int]bool)
	}
	c.own[cmd.Process.Pid] = true
	return nil
}

// wait waits for a process that start started.
func (c *children) wait(cmd *exec.Cmd) error {
	err := cmd.Wait()
	c.mu.Lock()
	defer c.mu.Unlock()
	delete(c.own, cmd.Process.Pid)
	return err
}

// Run collects orphans until ctx ends.
func (c *children) Run(ctx context.Context) error {
	died := make(chan os.Signal, 1)
	signal.Notify(died, unix.SIGCHLD)
	defer signal.Stop(died)
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-died:
			if err := c.collect(); err != nil {
				return err
			}
		}
	}
}

func (c *children) collect() error {
	entries, err := os.ReadDir("/proc")
	if err != nil {
		return fmt.Errorf("look for orphans: %w", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, e := range entries {
		pid, err := strconv.Atoi(e.Name())
		if err != nil || c.own[pid] {
			continue
		}
		if s, err := readStat("/proc/" + e.Name()); err == nil && s.state == 'Z' && s.parent == os.Getpid() {
			_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
		}
	}
	return nil
}
