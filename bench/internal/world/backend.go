package world

import (
	"errors"
	"fmt"
	"net/netip"

	"golang.org/x/sys/unix"

	"varco.dev/bench/internal/probe"
	"varco.dev/internal/nettest"
)

// backlog is how many connections may wait for a backend.
const backlog = 1024

// backend accepts connections at all addresses of a pod, says which of them it was and closes.
type backend struct{ fd int }

func startBackend(pod *nettest.Namespace, name byte) (b *backend, err error) {
	err = pod.Do(func() error {
		fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return fmt.Errorf("open socket: %w", err)
		}
		b = &backend{fd}
		return errors.Join(
			unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1),
			unix.Bind(fd, &unix.SockaddrInet4{Port: EndpointPort}),
			unix.Listen(fd, backlog))
	})
	if err != nil {
		return nil, err
	}
	go b.serve(name)
	return b, nil
}

// serve uses blocking system calls: the runtime's poller would add its own delays to what is measured. It returns when
// the socket is shut down.
func (b *backend) serve(name byte) {
	defer unix.Close(b.fd)
	for {
		fd, _, err := unix.Accept4(b.fd, unix.SOCK_CLOEXEC)
		switch {
		case err == nil:
			answer(fd, name)
			_ = unix.Close(fd)
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.ECONNABORTED), errors.Is(err, unix.EMFILE):
		default:
			return
		}
	}
}

func answer(fd int, name byte) {
	at, err := unix.Getsockname(fd)
	if in4, ok := at.(*unix.SockaddrInet4); ok && err == nil {
		_, _ = unix.Write(fd, probe.Answer{Name: name, Addr: netip.AddrFrom4(in4.Addr)}.Encode()) // the client may be gone
	}
}

// close ends serve. It is to be called once.
func (b *backend) close() { _ = unix.Shutdown(b.fd, unix.SHUT_RDWR) }
