package discovery

import (
	"errors"
	"os"
	"path/filepath"
	"time"
)

// leftoverAge is how old a file must be that a write left behind which never ended; a younger one may still be written.
const leftoverAge = time.Minute

// replace writes a file so that at any time either the old or the new one is there, also after a loss of power. Its folder
// is made if it is not there.
func replace(path string, text []byte) error {
	dir, name := filepath.Split(path)
	dir = filepath.Clean(dir)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	removeLeftovers(dir, name)
	f, err := os.CreateTemp(dir, "."+name+".*.new") // its mode is 0600
	if err != nil {
		return err
	}
	_, err = f.Write(text)
	if err == nil {
		err = f.Sync()
	}
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		os.Remove(f.Name())
		return err
	}
	syncDir(dir)
	return nil
}

// syncDir has the new name reach the disk. Not all systems can, and the file is whole either way.
func syncDir(dir string) {
	if f, err := os.Open(dir); err == nil {
		_ = f.Sync()
		f.Close()
	}
}

// removeLeftovers removes what writes left behind that never ended.
func removeLeftovers(dir, name string) {
	old, _ := filepath.Glob(filepath.Join(dir, "."+name+".*.new")) // fails for a name with a bad pattern only
	for _, path := range old {
		if info, err := os.Lstat(path); err == nil && info.Mode().IsRegular() && time.Since(info.ModTime()) > leftoverAge {
			os.Remove(path)
		}
	}
}
