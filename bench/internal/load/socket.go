package load

import (
	"errors"
	"io"
	"net"
	"net/netip"

	"golang.org/x/sys/unix"
)

// socket is a connection without the runtime's poller. As long as it blocks it serves for a handshake; then, as the one of
// crypto/tls too, it tells by errWait that there is nothing to read.
type socket struct {
	net.Conn // nil: its other methods are never called
	fd       int
}

// open connects. Until the socket is made non-blocking, it waits for a silent server no longer than that.
func open(to netip.AddrPort) (*socket, error) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	limit := unix.NsecToTimeval(int64(silence))
	err = errors.Join(
		unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1),
		unix.SetsockoptTimeval(fd, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &limit),
		unix.Connect(fd, &unix.SockaddrInet4{Port: int(to.Port()), Addr: to.Addr().As4()}))
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	return &socket{fd: fd}, nil
}

// waitError is a net.Error that crypto/tls takes for a passing one: a Read after it goes on in the middle of a record.
type waitError struct{}

func (waitError) Error() string   { return "nothing to read" }
func (waitError) Timeout() bool   { return true }
func (waitError) Temporary() bool { return true }

// errWait is how a socket says that there is nothing to read now.
var errWait = waitError{}

// Read implements io.Reader.
func (s *socket) Read(b []byte) (int, error) {
	for {
		n, err := unix.Read(s.fd, b)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.EAGAIN):
			return 0, errWait
		case err != nil:
			return 0, err
		case n == 0 && len(b) > 0:
			return 0, io.EOF
		}
		return n, nil
	}
}

// Write implements io.Writer. What it writes is small: a connection that does not take it at once is of no use.
func (s *socket) Write(b []byte) (int, error) {
	n, err := unix.Write(s.fd, b)
	if err == nil && n < len(b) {
		err = errors.New("the connection takes no more")
	}
	return max(n, 0), err
}
