package wire

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"runtime"

	"golang.org/x/sys/unix"
)

// Server answers requests at several addresses from one thread. A connection that begins with TLS is one that looks whether
// the server is ready, as an API server is asked, and is told that it is.
type Server struct {
	Addresses []netip.AddrPort
	// Certificate is for those.
	Certificate tls.Certificate
	// Ready is a file that is made as soon as all addresses listen.
	Ready string
	Log   *slog.Logger

	poll      *poll
	listeners map[int]bool
	have      map[int]int // bytes of the request that a connection is in; absent before the first
	probes    *probes
}

// maxEvents is how many events a turn of the server takes.
const maxEvents = 256

// backlog is how many connections may wait to be accepted.
const backlog = 4096

// Run serves until ctx ends; the end of the process closes what is open.
func (s *Server) Run(ctx context.Context) (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if s.poll, err = newPoll(maxEvents); err != nil {
		return err
	}
	s.listeners, s.have, s.probes = map[int]bool{}, map[int]int{}, newProbes()
	for _, a := range s.Addresses {
		if err := s.listen(a); err != nil {
			return fmt.Errorf("listen at %s: %w", a, err)
		}
	}
	go s.serveProbes()
	if err := os.WriteFile(s.Ready, nil, 0o644); err != nil {
		return fmt.Errorf("tell that all addresses listen: %w", err)
	}
	in, answer := make([]byte, 64<<10), make([]byte, answerBytes)
	for ctx.Err() == nil {
		events, err := s.poll.wait()
		if err != nil {
			return err
		}
		for _, e := range events {
			if fd := int(e.Fd); s.listeners[fd] {
				s.accept(fd)
			} else if err := s.turn(fd, in, answer); err != nil {
				s.drop(fd)
			}
		}
	}
	return nil
}

func (s *Server) listen(a netip.AddrPort) error {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return err
	}
	s.listeners[fd] = true
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	if err := unix.Bind(fd, &unix.SockaddrInet4{Port: int(a.Port()), Addr: a.Addr().As4()}); err != nil {
		return err
	}
	if err := unix.Listen(fd, backlog); err != nil {
		return err
	}
	return s.poll.add(fd, int32(fd), unix.EPOLLIN)
}

// accept takes one connection: the poll tells of the next.
func (s *Server) accept(listener int) {
	fd, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
	if err != nil {
		return // the client is gone
	}
	err = errors.Join(unix.SetsockoptInt(fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 1), s.poll.add(fd, int32(fd), unix.EPOLLIN))
	if err != nil {
		s.Log.Error("accept", "error", err)
		_ = unix.Close(fd) // it was of no use
	}
}

func (s *Server) drop(fd int) {
	delete(s.have, fd)
	_ = unix.Close(fd) // which takes it out of the poll too
}

// turn answers what is there.
func (s *Server) turn(fd int, in, answer []byte) error {
	n, err := read(fd, in)
	if errors.Is(err, errWait) {
		return nil
	}
	if err != nil {
		return err
	}
	have, known := s.have[fd]
	if !known {
		switch {
		case !marked(in[:n]):
			return s.handOver(fd, in[:n], s.probe)
		case in[askAt] == askBulk:
			return s.handOver(fd, in[:n], s.bulk)
		}
	}
	before := have
	for have += n; have >= requestBytes; have -= requestBytes {
		if err := write(fd, answer); err != nil {
			return err
		}
	}
	if !known || have != before {
		s.have[fd] = have
	}
	return nil
}

// handOver gives a connection, and what it has said, to another goroutine.
func (s *Server) handOver(fd int, said []byte, to func(int, []byte)) error {
	if err := unix.EpollCtl(s.poll.fd, unix.EPOLL_CTL_DEL, fd, nil); err != nil {
		return err
	}
	go to(fd, append([]byte(nil), said...))
	return nil
}

// bulkBytes is how much a write of bulk has at most.
const bulkBytes = 256 << 10

// bulk writes what is wanted.
func (s *Server) bulk(fd int, said []byte) {
	defer unix.Close(fd)
	if err := unix.SetNonblock(fd, false); err != nil {
		return
	}
	out := make([]byte, bulkBytes)
	for left := wanted(said); left > 0; {
		n, err := unix.Write(fd, out[:min(left, bulkBytes)])
		if err != nil && !errors.Is(err, unix.EINTR) {
			return // the client is gone
		}
		left -= int64(max(n, 0))
	}
	var b [1]byte
	_, _ = unix.Read(fd, b[:]) // the client ends the connection
}

// probe serves one TLS connection.
func (s *Server) probe(fd int, said []byte) {
	f := os.NewFile(uintptr(fd), "probe")
	c, err := net.FileConn(f)
	_ = f.Close() // c has its own
	if err != nil {
		s.Log.Error("probe", "error", err)
		return
	}
	s.probes.conns <- &resumed{Conn: c, said: said}
}

func (s *Server) serveProbes() {
	h := http.NewServeMux()
	h.HandleFunc("/readyz", func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("ok")) })
	server := &http.Server{Handler: h, TLSConfig: &tls.Config{Certificates: []tls.Certificate{s.Certificate}},
		ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug)}
	if err := server.ServeTLS(s.probes, "", ""); err != nil {
		s.Log.Error("serve probes", "error", err)
	}
}
