package tcp

import (
	"fmt"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// set sets an option. Connections inherit those of this file from their listener.
func set(fd, level, option, value int, what string) error {
	v := int32(value)
	_, _, errno := unix.RawSyscall6(unix.SYS_SETSOCKOPT, uintptr(fd), uintptr(level), uintptr(option),
		uintptr(unsafe.Pointer(&v)), unsafe.Sizeof(v), 0)
	if errno != 0 {
		return fmt.Errorf("set %s: %w", what, errno)
	}
	return nil
}

// SetNoDelay has small writes sent at once (TCP_NODELAY).
func SetNoDelay(fd int) error { return set(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1, "TCP_NODELAY") }

// KeepAlive is when a silent peer is probed; whole seconds.
type KeepAlive struct {
	Idle, Interval time.Duration
	Count          int // of probes without an answer after which the connection breaks, unless SetUserTimeout says when
}

// SetKeepAlive turns probes on.
func SetKeepAlive(fd int, k KeepAlive) error {
	for _, o := range []struct {
		level, option, value int
		what                 string
	}{
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1, "SO_KEEPALIVE"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, seconds(k.Idle), "TCP_KEEPIDLE"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, seconds(k.Interval), "TCP_KEEPINTVL"},
		{unix.IPPROTO_TCP, unix.TCP_KEEPCNT, k.Count, "TCP_KEEPCNT"},
	} {
		if err := set(fd, o.level, o.option, o.value, o.what); err != nil {
			return err
		}
	}
	return nil
}

func seconds(d time.Duration) int { return max(1, int((d+time.Second-1)/time.Second)) }

// SetUserTimeout breaks the connection after so long without an acknowledgement of bytes or probes, whole milliseconds
// (TCP_USER_TIMEOUT). 0: the kernel's own patience. It also breaks one whose peer acknowledges probes of a closed window.
func SetUserTimeout(fd int, d time.Duration) error {
	return set(fd, unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(d/time.Millisecond), "TCP_USER_TIMEOUT")
}

// SetRetransmitMost bounds the pause between retransmissions and between probes of a closed window (TCP_RTO_MAX_MS, Linux
// 6.15; at least a second). Older kernels answer ENOPROTOOPT.
func SetRetransmitMost(fd int, d time.Duration) error {
	return set(fd, unix.IPPROTO_TCP, unix.TCP_RTO_MAX_MS, int(d/time.Millisecond), "TCP_RTO_MAX_MS")
}

// Info is what the kernel knows of a connection (TCP_INFO).
type Info struct {
	Unacked  int           // segments sent and not acknowledged
	Unsent   int           // bytes that wait to be sent; 0 before Linux 4.6
	Probes   int           // without an answer, in a row: of keepalive or of a closed window
	Heard    time.Duration // since the last acknowledgement
	Received time.Duration // since the last bytes
}

// GetInfo asks for it.
func GetInfo(fd int) (Info, error) {
	var raw unix.TCPInfo
	size := uint32(unsafe.Sizeof(raw))
	_, _, errno := unix.RawSyscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.IPPROTO_TCP, unix.TCP_INFO,
		uintptr(unsafe.Pointer(&raw)), uintptr(unsafe.Pointer(&size)), 0)
	if errno != 0 {
		return Info{}, fmt.Errorf("read TCP_INFO: %w", errno)
	}
	return Info{
		Unacked:  int(raw.Unacked),
		Unsent:   int(raw.Notsent_bytes),
		Probes:   int(raw.Probes),
		Heard:    time.Duration(raw.Last_ack_recv) * time.Millisecond,
		Received: time.Duration(raw.Last_data_recv) * time.Millisecond,
	}, nil
}
