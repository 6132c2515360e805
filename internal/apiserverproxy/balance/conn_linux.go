package balance

import "syscall"

// readable looks without waiting. It does not get into the way of a read that waits.
func readable(c syscall.Conn) (is bool) {
	raw, err := c.SyscallConn()
	if err != nil {
		return false
	}
	_ = raw.Control(func(fd uintptr) {
		var b [1]byte
		_, _, err := syscall.Recvfrom(int(fd), b[:], syscall.MSG_PEEK|syscall.MSG_DONTWAIT)
		is = err != syscall.EAGAIN && err != syscall.EINTR
	}) // of a closed connection, net/http knows
	return is
}
