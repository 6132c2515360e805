package tcp

import (
	"fmt"

	"golang.org/x/sys/unix"
)

// Pipe holds bytes on their way from one socket to another, in the kernel (splice(2)). Who fills it counts what is in it.
type Pipe struct{ r, w int }

// OpenPipe opens a pipe for so many bytes, or for as many as the kernel lets an unprivileged user have
// (/proc/sys/fs/pipe-user-pages-soft).
func OpenPipe(size int) (Pipe, error) {
	var fds [2]int
	if err := unix.Pipe2(fds[:], unix.O_CLOEXEC|unix.O_NONBLOCK); err != nil {
		return Pipe{}, fmt.Errorf("open a pipe: %w", err)
	}
	unix.FcntlInt(uintptr(fds[0]), unix.F_SETPIPE_SZ, size) // the pipe is of use without
	return Pipe{fds[0], fds[1]}, nil
}

// Close closes both ends, and drops what is in it.
func (p Pipe) Close() {
	Close(p.r)
	Close(p.w)
}

// Fill moves at most so many bytes from a socket into the pipe; 0 without an error: the peer will send no more.
// ErrWouldBlock: the socket has none, or the pipe has no room.
func (p Pipe) Fill(from, most int) (int, error) { return splice(from, p.w, most) }

// Drain moves at most so many bytes from the pipe, which has them, to a socket. SPLICE_F_MORE is not said: where no more
// comes it delays the last bytes by 200 ms (golang.org/issue/10948).
func (p Pipe) Drain(to, most int) (int, error) { return splice(p.r, to, most) }

func splice(from, to, most int) (int, error) {
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_SPLICE, uintptr(from), 0, uintptr(to), 0, uintptr(most),
			unix.SPLICE_F_MOVE|unix.SPLICE_F_NONBLOCK)
		switch errno {
		case 0:
			return int(n), nil
		case unix.EINTR:
			continue
		case unix.EAGAIN:
			return 0, ErrWouldBlock
		}
		return 0, fmt.Errorf("splice: %w", errno)
	}
}
