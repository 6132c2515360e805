package handover

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"time"
)

const (
	// ServeTime is the default of Config.Wait.
	ServeTime = 30 * time.Second
	// Linger is how long the socket stays after a successor has taken over, to send those who come meanwhile to the
	// successor's.
	Linger = 5 * time.Second
)

// Config is what Serve needs.
type Config struct {
	// Path of the Unix socket: see Check.
	Path string
	// Listeners returns what a successor gets. They stay their owner's, and must be open until it returns again or
	// Serve does.
	Listeners func() []Listener
	// Taken is called once, when the successor accepts connections: it stops accepting here, and returns when that is
	// done. pid is the successor's; 0 if it has none here (another PID namespace).
	Taken func(pid int)
	// Standing, if it is there, is called once the socket is at its path: from then on a successor finds this process.
	Standing func()
	// Wait is how long a successor may take from getting the listeners to Done; default ServeTime. Then this process
	// goes on as if none had come.
	Wait time.Duration
	Log  *slog.Logger
}

// Serve offers the listeners at the path until a successor has taken them or ctx ends, and returns nil then. Successors
// that fail change nothing. It replaces the socket of a predecessor, and of a process that is gone.
func Serve(ctx context.Context, c Config) error {
	socket, err := occupy(c.Path)
	if err != nil {
		return err
	}
	defer func() { _ = socket.Close() }()
	defer context.AfterFunc(ctx, func() { _ = socket.Close() })()
	if c.Standing != nil {
		c.Standing()
	}
	s := server{c}
	for taken := false; ; {
		unix, err := socket.AcceptUnix()
		switch {
		case ctx.Err() != nil, taken && errors.Is(err, os.ErrDeadlineExceeded):
			return closed(unix)
		case errors.Is(err, net.ErrClosed):
			return fmt.Errorf("wait for a successor: %w", err)
		case err != nil: // too many open files, as it may be: no reason to end what is served
			c.Log.Warn("a successor could not be heard", "error", err)
			pause(ctx)
		case taken: // that it is closed says: look again
			_ = unix.Close()
		default:
			if taken = s.one(ctx, conn{unix}); taken {
				_ = socket.SetDeadline(time.Now().Add(Linger))
			}
		}
	}
}

func pause(ctx context.Context) {
	select {
	case <-ctx.Done():
	case <-time.After(time.Second):
	}
}

// closed closes what was accepted while ctx ended.
func closed(unix *net.UnixConn) error {
	if unix != nil {
		_ = unix.Close()
	}
	return nil
}

type server struct{ Config }

// one deals with one process, and says whether it has taken over.
func (s server) one(ctx context.Context, c conn) bool {
	defer context.AfterFunc(ctx, func() { _ = c.unix.Close() })()
	defer func() { _ = c.unix.Close() }()
	pid, err := s.offer(c)
	if err == nil {
		_, _, err = c.receive(kindDone, time.Now().Add(cmp.Or(s.Wait, ServeTime)))
	}
	if err != nil {
		if ctx.Err() == nil {
			s.Log.Warn("a process did not take over", "pid", pid, "error", err)
			s.refuse(c, err)
		}
		return false
	}
	s.Taken(pid)
	_ = c.unix.SetWriteDeadline(time.Now().Add(answerTime))
	if err := c.send(message{Kind: kindTaken}, nil); err != nil {
		s.Log.Warn("the process that has taken over was not told so", "pid", pid, "error", err)
	}
	return true
}

// refuse says why, if there is still someone to hear it. A process that hears nothing takes this one for dead.
func (s server) refuse(c conn, err error) {
	_ = c.unix.SetWriteDeadline(time.Now().Add(answerTime))
	reason := err.Error()
	_ = c.send(message{Kind: kindRefused, Reason: reason[:min(len(reason), maxMessage/2)]}, nil)
}

// offer sends the listeners.
func (s server) offer(c conn) (pid int, err error) {
	if pid, err = c.peer(); err != nil {
		return 0, err
	}
	if _, _, err = c.receive(kindTake, time.Now().Add(answerTime)); err != nil {
		return pid, err
	}
	list := s.Listeners()
	if len(list) > MaxListeners {
		return pid, fmt.Errorf("%d listeners are more than %d", len(list), MaxListeners)
	}
	_ = c.unix.SetWriteDeadline(time.Now().Add(answerTime))
	if err := c.send(message{Kind: kindOffer, Count: len(list)}, nil); err != nil {
		return pid, err
	}
	for _, l := range list {
		if err := c.send(message{Kind: kindListener, Name: l.Name}, l.Net); err != nil {
			return pid, fmt.Errorf("listener %s: %w", l.Name, err)
		}
	}
	return pid, nil
}
