// Package filewatch reads and follows files that users name, and that they and programs change while Varco runs.
package filewatch

import (
	"context"
	"time"
)

// Period is the pause between two looks. Files are read, not watched by inotify: what a user may do with them (replace
// them, swap the symbolic link that kubelet keeps for a ConfigMap, mount over them, delete them for a while) then makes
// no difference, and nothing is taken from the machine's inotify instances, of which there are few
// (fs.inotify.max_user_instances, 128). kubelet itself takes up to a minute to bring a ConfigMap to a node.
const Period = time.Second

// Follow tells of what look finds, until the context ends; it returns nil then. look must be quick: it runs once a Period.
//
// What was found counts once it was found twice in a row, so that a file is not taken over while it is being written.
// changed gets it if it is not what was handled last, at first the given value. One goroutine calls both functions, and
// the next look waits for changed.
func Follow[S comparable](ctx context.Context, handled S, look func() S, changed func(S)) error {
	tick := time.NewTicker(Period)
	defer tick.Stop()
	var last S
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			now := look()
			steady := now == last
			last = now
			if steady && now != handled {
				handled = now
				changed(now)
			}
		}
	}
}
