//go:build linux

package cli

import (
	"context"
	"time"
)

const (
	// memoryLook is how often the number of upgraded connections is looked at.
	memoryLook = time.Second
	// manyUpgrades is how many more or fewer there must be for their garbage to matter.
	manyUpgrades = 100
)

// giveBack returns memory to the system once a burst of upgrades has come or gone, until the context ends. Their handshakes
// leave as much garbage as they keep, and who is idle afterwards collects none: of 76 KiB for each of 1,000 idle WebSockets, a
// third was that. A collection takes some milliseconds of one processor; there is none while the number still changes.
func giveBack(ctx context.Context, upgrades func() int, free func()) error {
	ticks := time.NewTicker(memoryLook)
	defer ticks.Stop()
	freed, last := 0, 0
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-ticks.C:
		}
		now := upgrades()
		if moved := now - freed; now == last && (moved >= manyUpgrades || -moved >= manyUpgrades) {
			free()
			freed = now
		}
		last = now
	}
}
