package node

import (
	"os"
	"path/filepath"
	"slices"
)

// keptLogs is how many log files of containers a node keeps; a person may want to read that of a pod that is gone.
const keptLogs = 500

// pruneLogs removes the oldest log files of a folder beyond keptLogs, except those that are in use. A program that
// prints nothing has an old log too.
func pruneLogs(dir string, inUse func(name string) bool) error {
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) <= keptLogs {
		return err
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return inUse(e.Name()) })
	age := map[string]int64{}
	for _, e := range entries {
		if info, err := e.Info(); err == nil {
			age[e.Name()] = info.ModTime().UnixNano()
		}
	}
	slices.SortFunc(entries, func(a, b os.DirEntry) int { return int(min(1, max(-1, age[a.Name()]-age[b.Name()]))) })
	for _, e := range entries[:max(0, len(entries)-keptLogs)] {
		if err := os.Remove(filepath.Join(dir, e.Name())); err != nil && !os.IsNotExist(err) {
			return err
		}
	}
	return nil
}
