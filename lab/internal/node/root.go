package node

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// hostMount is where a container sees the machine's files, read-only.
const hostMount = "/.host"

// isPrivate says whether a path is in a folder that each container has for itself.
func isPrivate(path string) bool {
	return strings.HasPrefix(path, "/tmp/") || strings.HasPrefix(path, "/run/")
}

// mount makes a file or folder of the node appear at a path of a container.
type mount struct {
	Source, Target string // absolute
	ReadOnly       bool
}

// rootSpec is the file system of a container: what the machine has, through symbolic links into a read-only mount of it,
// with a /tmp, /run, /proc, /sys and /dev of its own and with mounts where the pod wants them. Links and not an overlay, since the
// kernel may not have overlayfs.
type rootSpec struct {
	Dir      string // empty folder of the node that becomes the root
	Hostname string // empty: the node's
	Hide     string // folder of mounts that the container must not hold on to
	HostProc bool   // the node's /proc and not one that the container's first process mounts
	Mounts   []mount
	May      security
}

// build makes a mount namespace for the calling thread, which must be locked and have its own CLONE_FS, with the root
// mounted at Dir. All mounts end with the last process in the namespace.
func (r rootSpec) build() error {
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_NEWUTS); err != nil {
		return fmt.Errorf("make mount namespace: %w", err)
	}
	if r.Hostname != "" {
		if err := unix.Sethostname([]byte(r.Hostname)); err != nil {
			return fmt.Errorf("set host name: %w", err)
		}
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_SLAVE, ""); err != nil {
		return fmt.Errorf("keep mounts from the machine: %w", err)
	}
	r.hide()
	if err := r.base(); err != nil {
		return fmt.Errorf("make container root: %w", err)
	}
	slices.SortStableFunc(r.Mounts, func(a, b mount) int { return strings.Compare(a.Target, b.Target) })
	for _, m := range r.Mounts {
		if err := r.add(m); err != nil {
			return fmt.Errorf("mount %s at %s: %w", m.Source, m.Target, err)
		}
	}
	if !r.May.ReadOnlyRoot {
		return nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	if err := unix.MountSetattr(unix.AT_FDCWD, r.Dir, 0, &attr); err != nil {
		return fmt.Errorf("make container root read-only: %w", err)
	}
	return nil
}

// hide unmounts the network namespaces' files in this copy of the mounts: a copy would keep every pod's network alive
// as long as this container.
func (r rootSpec) hide() {
	files, _ := filepath.Glob(filepath.Join(r.Hide, "*"))
	for _, f := range append(files, r.Hide) {
		_ = unix.Unmount(f, unix.MNT_DETACH) // fails for what is no mount point
	}
}

func (r rootSpec) base() error {
	if err := unix.Mount("tmpfs", r.Dir, "tmpfs", 0, "mode=755,size=64m"); err != nil {
		return err
	}
	for path, mode := range map[string]os.FileMode{hostMount: 0o755, "/run": 0o755, "/tmp": 0o777 | os.ModeSticky} {
		if err := os.Mkdir(r.Dir+path, mode); err != nil {
			return err
		}
		if err := os.Chmod(r.Dir+path, mode); err != nil {
			return err
		}
	}
	if err := bind("/", r.Dir+hostMount, true); err != nil {
		return err
	}
	_ = unix.Unmount(r.Dir+hostMount+r.Dir, unix.MNT_DETACH) // fails where the container's own root is not seen twice
	for _, path := range []string{"/proc", "/sys", "/dev"} {
		if err := os.Mkdir(r.Dir+path, 0o755); err != nil {
			return err
		}
		// The machine's are not among its files: what they lead to cannot be made read-only.
		if err := unix.Mount("tmpfs", r.Dir+hostMount+path, "tmpfs", unix.MS_RDONLY, ""); err != nil {
			return err
		}
	}
	if err := r.system(); err != nil {
		return err
	}
	return r.link("/")
}

// bind mounts source with all that is mounted under it.
func bind(source, target string, readOnly bool) error {
	if err := unix.Mount(source, target, "", unix.MS_BIND|unix.MS_REC, ""); err != nil {
		return err
	}
	if !readOnly {
		return nil
	}
	attr := unix.MountAttr{Attr_set: unix.MOUNT_ATTR_RDONLY}
	return unix.MountSetattr(unix.AT_FDCWD, target, unix.AT_RECURSIVE, &attr)
}

// link fills a folder of the root with links to what the machine has there. Links of the machine are copied: they
// lead to the right place by themselves.
func (r rootSpec) link(dir string) error {
	entries, err := os.ReadDir(dir)
	if err != nil {
		return err
	}
	for _, e := range entries {
		path := filepath.Join(dir, e.Name())
		to := hostMount + path
		if e.Type()&os.ModeSymlink != 0 {
			if to, err = os.Readlink(path); err != nil {
				continue // gone since
			}
		}
		if err := os.Symlink(to, r.Dir+path); err != nil && !os.IsExist(err) {
			return err
		}
	}
	return nil
}

func (r rootSpec) add(m mount) error {
	info, err := os.Stat(m.Source)
	if err != nil {
		return err
	}
	path, err := r.dir(filepath.Dir(filepath.Clean(m.Target)), 0)
	if err != nil {
		return err
	}
	if info.IsDir() {
		if path, err = r.dir(filepath.Join(path, filepath.Base(m.Target)), 0); err != nil {
			return err
		}
	} else {
		path = filepath.Join(path, filepath.Base(m.Target))
		if l, err := os.Lstat(r.Dir + path); err == nil && l.Mode()&os.ModeSymlink != 0 {
			if err := os.Remove(r.Dir + path); err != nil {
				return err
			}
		}
		f, err := os.OpenFile(r.Dir+path, os.O_CREATE|os.O_RDONLY, 0o644)
		if err != nil {
			return err
		}
		f.Close()
	}
	return bind(m.Source, r.Dir+path, m.ReadOnly)
}

// dir makes path a folder of the root itself and returns it with links resolved.
func (r rootSpec) dir(path string, depth int) (string, error) {
	if path == "/" {
		return "/", nil
	}
	if depth > 40 {
		return "", fmt.Errorf("too many symbolic links at %s", path)
	}
	parent, err := r.dir(filepath.Dir(path), depth+1)
	if err != nil {
		return "", err
	}
	path = filepath.Join(parent, filepath.Base(path))
	info, err := os.Lstat(r.Dir + path)
	switch {
	case os.IsNotExist(err):
		return path, os.Mkdir(r.Dir+path, 0o755)
	case err != nil:
		return "", err
	case info.Mode()&os.ModeSymlink == 0:
		return path, nil
	}
	to, err := os.Readlink(r.Dir + path)
	if err != nil {
		return "", err
	}
	if to == hostMount+path {
		return path, r.own(path)
	}
	if !filepath.IsAbs(to) {
		to = filepath.Join(parent, to)
	}
	return r.dir(to, depth+1)
}

// own replaces a link to a folder of the machine by a folder of the container with the same entries.
func (r rootSpec) own(path string) error {
	if err := os.Remove(r.Dir + path); err != nil {
		return err
	}
	if err := os.Mkdir(r.Dir+path, 0o755); err != nil {
		return err
	}
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return nil
	}
	return r.link(path)
}
