package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// Bounds of the end of a lab.
const (
	nodeGrace = 5 * time.Second  // for node agents to end their pods
	stopLimit = 15 * time.Second // for the supervisor to end, before it is killed
	killLimit = 30 * time.Second // for the kernel to end a killed lab
)

// superviseCommand is the hidden command that Up starts.
const superviseCommand = "supervise"

// upTitle is the title of the step that is done when the whole lab is up. It is not shown.
const upTitle = "up"

// Up starts a lab, removing a dead one from its folder before, and returns when all its nodes are ready. progress may
// be nil. If it returns an error, nothing of the lab runs; the logs of a lab that failed are kept in the folder, one that
// ctx interrupted is removed. The error is ErrUp if there is a lab already and ErrNotRoot for a user who cannot have one.
func Up(ctx context.Context, cfg Config, progress Progress) error {
	if err := needRoot(); err != nil {
		return err
	}
	cfg, err := cfg.complete()
	if err != nil {
		return err
	}
	lock, err := claim(cfg.Dir)
	if err != nil {
		return err
	}
	defer lock.Close()
	if err := sweep(cfg.Dir, lock); err != nil {
		return fmt.Errorf("remove a dead lab: %w", err)
	}
	if err := os.MkdirAll(filepath.Join(cfg.Dir, logDir), 0o755); err != nil {
		return err
	}
	if err := cfg.save(); err != nil {
		return err
	}
	if progress == nil {
		progress = func(Step) {}
	}
	return launch(ctx, cfg, lock, progress)
}

// sweep removes what a dead lab left in the folder, except the file of the claim, which forgets the
// supervisor.
func sweep(dir string, lock *os.File) error {
	if id, err := readIdentity(dir); err == nil && !id.waitGone(killLimit) {
		return fmt.Errorf("process %d of it does not end", id.pid)
	}
	if err := removeEntries(dir); err != nil {
		return err
	}
	return lock.Truncate(int64(len(magic)))
}

// launch starts the supervisor and follows its steps.
func launch(ctx context.Context, cfg Config, lock *os.File, progress Progress) error {
	read, write, err := os.Pipe()
	if err != nil {
		return err
	}
	defer read.Close()
	cmd, err := startSupervisor(cfg, lock, write)
	write.Close()
	if err != nil {
		return fmt.Errorf("start the supervisor: %w", err)
	}
	// The supervisor outlives this call. Should this process outlive the supervisor, it must be collected.
	ended := make(chan struct{})
	go func() {
		_ = cmd.Wait()
		close(ended)
	}()
	interrupted := make(chan error, 1)
	stop := context.AfterFunc(ctx, func() {
		_ = cmd.Process.Signal(unix.SIGTERM)
		interrupted <- end(cmd, ended)
	})
	err = follow(read, upTitle, progress)
	if err == nil && stop() {
		return nil
	}
	err = explain(ctx, cfg, err)
	if stop() {
		err = errors.Join(err, end(cmd, ended))
	} else {
		err = errors.Join(err, <-interrupted)
	}
	if ctx.Err() != nil {
		err = errors.Join(err, removeFolder(cfg.Dir))
	}
	return err
}

func explain(ctx context.Context, cfg Config, err error) error {
	if ctx.Err() != nil {
		return fmt.Errorf("interrupted: %w", context.Cause(ctx))
	}
	if errors.Is(err, errSilent) {
		path := logPath(cfg.Dir, "supervisor")
		return fmt.Errorf("%w\nthe end of its log, %s:\n%s", err, path, tail(path, failureLines))
	}
	return err
}

// end waits for a supervisor that has been told to end or has failed.
func end(cmd *exec.Cmd, ended <-chan struct{}) error {
	select {
	case <-ended:
		return nil
	case <-time.After(stopLimit):
	}
	_ = cmd.Process.Kill()
	select {
	case <-ended:
		return nil
	case <-time.After(killLimit):
		return fmt.Errorf("process %d does not end", cmd.Process.Pid)
	}
}

// Numbers of the files that the supervisor inherits.
const (
	lockFD = 3 + iota
	stepsFD
)

func startSupervisor(cfg Config, lock, steps *os.File) (*exec.Cmd, error) {
	log, err := os.OpenFile(logPath(cfg.Dir, "supervisor"), os.O_APPEND|os.O_CREATE|os.O_WRONLY, 0o644)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := exec.Command(cfg.Binary, superviseCommand, "--dir="+cfg.Dir,
		"--lock-fd="+strconv.Itoa(lockFD), "--steps-fd="+strconv.Itoa(stepsFD))
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{lock, steps}
	// The first process of a PID namespace takes all others with it when it ends, and with the last process of a mount
	// namespace its mounts are gone: so nothing is left of a lab, however its supervisor ends.
	cmd.SysProcAttr = &unix.SysProcAttr{Setsid: true, Cloneflags: unix.CLONE_NEWPID | unix.CLONE_NEWNS}
	return cmd, cmd.Start()
}
