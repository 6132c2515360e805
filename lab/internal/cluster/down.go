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
// an error. It leaves alone what no lab made: an empty folder, and with an error a folder that holds something else.
func Down(ctx context.Context, dir string) (removed bool, err error) {
	if err := needRoot(); err != nil {
		return false, err
	}
	if dir, err = absoluteDir(dir); err != nil {
		return false, err
	}
	if entries, err := os.ReadDir(dir); errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
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
	return true, removeFolder(dir)
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
	if err := id.signal(unix.SIGTERM); err != nil {
		return err
	}
	if id.waitGone(stopLimit) {
		return nil
	}
	if err := id.signal(unix.SIGKILL); err != nil {
		return err
	}
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
