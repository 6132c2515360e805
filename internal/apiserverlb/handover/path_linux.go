package handover

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"syscall"
)

// maxPath is the longest path in bytes: what sockaddr_un holds (unix(7)), less a dot and a PID.
const maxPath = 107 - 8

// writableByOthers are the bits of a folder in which others could put a socket of their own.
const writableByOthers = 0o022

// Check says why the path will not do for the socket: it is too long, or its folder is missing, or others than this
// user and root may write to the folder.
func Check(path string) error {
	if len(path) > maxPath {
		return fmt.Errorf("the path of the socket has %d bytes, and %d fit: %s", len(path), maxPath, path)
	}
	dir := filepath.Dir(path)
	info, err := os.Stat(dir)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return fmt.Errorf("the folder of the socket, %s, does not exist", dir)
	case err != nil:
		return fmt.Errorf("look at the folder of the socket: %w", err)
	case !info.IsDir():
		return fmt.Errorf("%s, where the socket belongs, is not a folder", dir)
	case info.Mode()&writableByOthers != 0:
		return fmt.Errorf("others may write to the folder of the socket: chmod go-w %s", dir)
	}
	if stat, ok := info.Sys().(*syscall.Stat_t); ok && stat.Uid != 0 && int(stat.Uid) != os.Geteuid() {
		return fmt.Errorf("the folder of the socket, %s, belongs to user %d, neither to this one, %d, nor to root", dir, stat.Uid, os.Geteuid())
	}
	return nil
}

// occupy listens at the path. A socket that is there is replaced in one step, so that there is one at any time; what is
// there and is no socket is left alone. The socket stays when the listener is closed: by then it may be another process's,
// and nothing tells for certain. With nobody behind it, it does no harm.
func occupy(path string) (*net.UnixListener, error) {
	if err := Check(path); err != nil {
		return nil, err
	}
	if info, err := os.Lstat(path); err == nil && info.Mode().Type() != fs.ModeSocket {
		return nil, fmt.Errorf("%s is there, and is not a socket", path)
	}
	own := path + "." + strconv.Itoa(os.Getpid())
	_ = os.Remove(own) // left by a process of the same PID
	l, err := net.ListenUnix("unixpacket", &net.UnixAddr{Net: "unixpacket", Name: own})
	if err != nil {
		return nil, fmt.Errorf("listen for a successor: %w", err)
	}
	l.SetUnlinkOnClose(false)
	if err = os.Chmod(own, 0o600); err == nil {
		err = os.Rename(own, path)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("listen for a successor: %w", err), l.Close(), os.Remove(own))
	}
	return l, nil
}
