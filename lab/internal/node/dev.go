package node

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// system mounts the container's /sys and /dev and, if it is the node's, /proc.
func (r rootSpec) system() error {
	if r.HostProc {
		if err := bind("/proc", r.Dir+"/proc", false); err != nil {
			return fmt.Errorf("mount proc: %w", err)
		}
	}
	flags := uintptr(unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC)
	if !r.May.Privileged {
		flags |= unix.MS_RDONLY
	}
	// It shows the devices of the network namespace that the thread is in.
	if err := unix.Mount("sysfs", r.Dir+"/sys", "sysfs", flags, ""); err != nil {
		return fmt.Errorf("mount sysfs: %w", err)
	}
	if r.May.Privileged {
		return bind("/dev", r.Dir+"/dev", false)
	}
	return r.devices()
}

// devices makes a /dev of the devices that every container has, with terminals and shared memory of its own.
func (r rootSpec) devices() error {
	dev := r.Dir + "/dev"
	if err := unix.Mount("tmpfs", dev, "tmpfs", unix.MS_NOSUID, "mode=755,size=64k"); err != nil {
		return fmt.Errorf("mount dev: %w", err)
	}
	for _, name := range []string{"null", "zero", "full", "random", "urandom", "tty"} {
		if err := os.WriteFile(dev+"/"+name, nil, 0o666); err != nil {
			return err
		}
		if err := bind("/dev/"+name, dev+"/"+name, false); err != nil {
			return fmt.Errorf("mount device %s: %w", name, err)
		}
	}
	for name, to := range map[string]string{
		"fd": "/proc/self/fd", "stdin": "/proc/self/fd/0", "stdout": "/proc/self/fd/1", "stderr": "/proc/self/fd/2",
		"ptmx": "pts/ptmx",
	} {
		if err := os.Symlink(to, dev+"/"+name); err != nil {
			return err
		}
	}
	for _, m := range []struct{ name, kind, options string }{
		{"pts", "devpts", "newinstance,ptmxmode=0666,mode=0620,gid=5"}, {"shm", "tmpfs", "mode=1777,size=64m"},
	} {
		if err := os.Mkdir(dev+"/"+m.name, 0o755); err != nil {
			return err
		}
		if err := unix.Mount(m.kind, dev+"/"+m.name, m.kind, unix.MS_NOSUID|unix.MS_NOEXEC, m.options); err != nil {
			return fmt.Errorf("mount %s: %w", m.name, err)
		}
	}
	return nil
}
