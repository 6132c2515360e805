package node

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// payload is what a volume made from API objects holds: path in the volume to file.
type payload map[string]file

// file is one file of a payload.
type file struct {
	data []byte
	mode fs.FileMode
}

// dataLink is the link that every file of a payload is reached through, so that one rename changes all of them at once.
// Programs that watch their configuration watch this name.
const dataLink = "..data"

// write makes dir hold the payload, in one step for whoever reads it: the files are in a folder of their own that
// ..data leads to. It does nothing if dir holds the payload already.
func (p payload) write(dir string) error {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return err
	}
	defer root.Close()
	old, _ := root.Readlink(dataLink)
	if !isVersion(old) {
		old = ""
	}
	if old != "" && p.equal(root.FS(), old) {
		return nil
	}
	version := ".." + strconv.FormatInt(time.Now().UnixNano(), 10)
	if err := p.writeFiles(root, version); err != nil {
		return err
	}
	next := dataLink + "_next"
	_ = root.Remove(next)
	if err := root.Symlink(version, next); err != nil {
		return err
	}
	if err := root.Rename(next, dataLink); err != nil {
		return err
	}
	if err := p.link(root); err != nil {
		return err
	}
	if old == "" {
		return nil
	}
	return root.RemoveAll(old)
}

// isVersion says whether a name is one that write gives to a folder. Nothing else is ever removed: who can write to the
// volume could lead ..data elsewhere.
func isVersion(name string) bool {
	digits, ok := strings.CutPrefix(name, "..")
	return ok && digits != "" && strings.Trim(digits, "0123456789") == ""
}

func (p payload) writeFiles(root *os.Root, dir string) error {
	if err := root.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for name, f := range p {
		if name == "" || strings.HasPrefix(name, "..") || !filepath.IsLocal(name) {
			return fmt.Errorf("path %q leads out of the volume", name)
		}
		path := filepath.Join(dir, name)
		if err := root.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := root.WriteFile(path, f.data, f.mode); err != nil {
			return err
		}
		if err := root.Chmod(path, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// link makes the first part of each path a link through ..data and removes links to what is gone.
func (p payload) link(root *os.Root) error {
	want := map[string]bool{}
	for name := range p {
		first, _, _ := strings.Cut(name, "/")
		want[first] = true
	}
	for name := range want {
		err := root.Symlink(filepath.Join(dataLink, name), name)
		if err != nil && !errors.Is(err, fs.ErrExist) {
			return err
		}
	}
	entries, err := fs.ReadDir(root.FS(), ".")
	if err != nil {
		return err
	}
	for _, e := range entries {
		if !strings.HasPrefix(e.Name(), "..") && !want[e.Name()] {
			if err := root.Remove(e.Name()); err != nil {
				return err
			}
		}
	}
	return nil
}

// equal says whether a folder holds exactly the payload.
func (p payload) equal(volume fs.FS, dir string) bool {
	n := 0
	err := fs.WalkDir(volume, dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		n++
		name, _ := filepath.Rel(dir, path)
		f, ok := p[name]
		have, err := fs.ReadFile(volume, path)
		if !ok || err != nil || !bytes.Equal(have, f.data) {
			return fs.ErrInvalid
		}
		return nil
	})
	return err == nil && n == len(p)
}
