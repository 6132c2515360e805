package cluster

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// Down ends the lab in the folder and removes the folder. It says whether there was anything to remove: no lab is not
// an error. It refuses folders that no lab made.
func Down(ctx context.Context, dir string) (removed bool, err error) {
	if err := needRoot(); err != nil {
		return false, err
	}
	if dir, err = absoluteDir(dir); err != nil {
		return false, err
	}
	if _, err := os.Stat(dir); errors.Is(err, os.ErrNotExist) {
		return false, nil
	}
	if err := checkForeign(dir); err != nil {
		return false, fmt.Errorf("folder %s: %w", dir, err)
	}
	if err := endSupervisor(ctx, dir); err != nil {
		return false, err
	}
	lock, err := claim(dir)
	if err != nil {
		return false, err
	}
	defer lock.Close()
	if err := os.RemoveAll(dir); err != nil {
		return false, fmt.Errorf("remove folder of the lab: %w", err)
	}
	return true, nil
}

func endSupervisor(ctx context.Context, dir string) error {
	if !held(dir) {
		id, err := readIdentity(dir)
		if err == nil && !id.waitGone(killLimit) {
			return fmt.Errorf("process %d of the lab does not end", id.pid)
		}
		return nil
	}
	id, err := awaitIdentity(ctx, dir)
	if err != nil {
		return err
	}
	_ = unix.Kill(id.pid, unix.SIGTERM)
	if id.waitGone(stopLimit) {
		return nil
	}
	_ = unix.Kill(id.pid, unix.SIGKILL)
	if !id.waitGone(killLimit) {
		return fmt.Errorf("process %d of the lab does not end", id.pid)
	}
	return nil
}

// awaitIdentity waits for a supervisor that is just starting to write down who it is.
func awaitIdentity(ctx context.Context, dir string) (identity, error) {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(stopLimit); time.Now().Before(end); {
		if id, err := readIdentity(dir); err == nil && !id.gone() {
			return id, nil
		}
		select {
		case <-ctx.Done():
			return identity{}, ctx.Err()
		case <-tick.C:
		}
	}
	return identity{}, fmt.Errorf("a lab is just starting in %s; try again", dir)
}
