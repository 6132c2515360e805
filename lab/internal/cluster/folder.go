package cluster

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// Files in the folder of a lab.
const (
	pidFile     = "supervisor.pid"
	configFile  = "config.json"
	controlFile = "control.sock"
	netnsDir    = "netns"
	logDir      = "log"
)

// magic is how pidFile begins. Any program may write a file of that name, but none begins it so: it tells the folder of
// a lab from all others.
const magic = "varco-lab folder: varco-lab down removes what is in it\n"

// checkForeign returns errForeign for a folder with something in it that no lab made.
func checkForeign(dir string) error {
	entries, err := os.ReadDir(dir)
	if errors.Is(err, os.ErrNotExist) || err == nil && len(entries) == 0 {
		return nil
	}
	if err != nil {
		return err
	}
	b, err := os.ReadFile(filepath.Join(dir, pidFile))
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	// A claim that was broken off before it was marked leaves an empty file and nothing else.
	unmarked := err == nil && len(b) == 0 && len(entries) == 1
	if unmarked || strings.HasPrefix(string(b), magic) {
		return nil
	}
	return errForeign
}

// labEntries are the names of all that a lab of any size has in its folder, except pidFile.
func labEntries() []string {
	return append(Config{APIServers: maxControlPlanes}.layout(0).Entries(), configFile, controlFile, netnsDir, logDir)
}

// removeEntries removes what a lab made in its folder, except the file that marks it.
func removeEntries(dir string) error {
	for _, name := range labEntries() {
		if err := os.RemoveAll(filepath.Join(dir, name)); err != nil {
			return err
		}
	}
	return nil
}

// removeFolder removes the folder of a lab, which must be claimed. What others put there stays, and is an error.
func removeFolder(dir string) error {
	if err := removeEntries(dir); err != nil {
		return fmt.Errorf("remove folder of the lab: %w", err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return fmt.Errorf("remove folder of the lab: %w", err)
	}
	entries = slices.DeleteFunc(entries, func(e os.DirEntry) bool { return e.Name() == pidFile })
	// The mark goes last: a removal that is broken off can be done again.
	if err := os.Remove(filepath.Join(dir, pidFile)); err != nil {
		return fmt.Errorf("remove folder of the lab: %w", err)
	}
	if len(entries) > 0 {
		return fmt.Errorf("the lab is removed, but its folder %s has something that no lab made, such as %s: remove it yourself",
			dir, entries[0].Name())
	}
	if err := os.Remove(dir); err != nil {
		return fmt.Errorf("remove folder of the lab: %w", err)
	}
	return nil
}
