package handover

import (
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"net"
	"syscall"
	"time"
)

const (
	// TakeTime is how long Take waits: another process may be taking over at the same time.
	TakeTime = ServeTime + 10*time.Second
	// DoneTime is how long Done waits for the predecessor to stop.
	DoneTime = 10 * time.Second

	lookAgain = 50 * time.Millisecond // after a take-over by another, or its end, until there is a socket or none
)

// ErrNobody says that no process is there to take over from.
var ErrNobody = errors.New("no process is there to take over from")

// Taken is what a predecessor gave.
type Taken struct {
	Listeners []Listener // the caller's, in no order
	PID       int        // of the predecessor; 0 if it has none here (another PID namespace)

	conn conn
}

// Take asks the process at the path for its listeners; it goes on accepting until Done. With
// errors.Is(err, ErrNobody) there is none: open them. With any other error there may be one, and its listeners cannot be
// opened a second time.
func Take(ctx context.Context, path string) (*Taken, error) {
	if len(path) > maxPath {
		return nil, Check(path)
	}
	ctx, stop := context.WithTimeout(ctx, TakeTime)
	defer stop()
	for {
		t, err := take(ctx, path)
		if !gone(err) {
			return t, err
		}
		select {
		case <-ctx.Done():
			return nil, unanswered(ctx, path)
		case <-time.After(lookAgain):
		}
	}
}

// gone says whether the process at the other end has ended: it answers whatever it thinks.
func gone(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

func take(ctx context.Context, path string) (*Taken, error) {
	dialled, err := (&net.Dialer{}).DialContext(ctx, "unixpacket", path)
	if errors.Is(err, fs.ErrNotExist) || errors.Is(err, syscall.ECONNREFUSED) {
		return nil, fmt.Errorf("%w: %w", ErrNobody, err)
	}
	if err != nil {
		return nil, fmt.Errorf("take over: %w", err)
	}
	unix := dialled.(*net.UnixConn)
	t := &Taken{conn: conn{unix}}
	defer context.AfterFunc(ctx, func() { _ = unix.Close() })()
	if err := t.receive(); err != nil {
		for _, l := range t.Listeners {
			_ = l.Net.Close()
		}
		_ = unix.Close()
		if ctx.Err() != nil {
			return nil, unanswered(ctx, path)
		}
		return nil, fmt.Errorf("take over: %w", err)
	}
	return t, nil
}

// unanswered says that the time was over, or ctx ended, before the listeners came.
func unanswered(ctx context.Context, path string) error {
	return fmt.Errorf("take over: the process at %s gives its listeners to another one, or hangs: %w", path, ctx.Err())
}

// receive asks for the listeners, and gets them.
func (t *Taken) receive() (err error) {
	if t.PID, err = t.conn.peer(); err != nil {
		return err
	}
	if err := t.conn.send(message{Kind: kindTake}, nil); err != nil {
		return err
	}
	// The end of ctx closes the connection.
	offer, _, err := t.conn.receive(kindOffer, time.Time{})
	if err != nil {
		return err
	}
	for range min(offer.Count, MaxListeners) {
		m, f, err := t.conn.receive(kindListener, time.Now().Add(answerTime))
		if err != nil {
			return err
		}
		if f == nil {
			return fmt.Errorf("listener %s came without its descriptor: too many files may be open here", m.Name)
		}
		l, err := adopt(f)
		if err != nil {
			return fmt.Errorf("listener %s: %w", m.Name, err)
		}
		t.Listeners = append(t.Listeners, Listener{Name: m.Name, Net: l})
	}
	return nil
}

// Done tells the predecessor that connections are accepted here, and returns nil when it accepts no longer, or is gone.
// With an error the predecessor goes on, and this process should end. Serve comes after Done.
func (t *Taken) Done(ctx context.Context) error {
	defer func() { _ = t.conn.unix.Close() }()
	defer context.AfterFunc(ctx, func() { _ = t.conn.unix.Close() })()
	err := t.conn.send(message{Kind: kindDone}, nil)
	if err == nil || gone(err) {
		// A predecessor that has given up waiting has said so before.
		_, _, err = t.conn.receive(kindTaken, time.Now().Add(DoneTime))
	}
	if err == nil || gone(err) {
		return nil
	}
	if ctx.Err() != nil {
		err = ctx.Err()
	}
	return fmt.Errorf("let the other process stop: %w", err)
}

// Close ends a take-over without Done: the predecessor goes on as before. The listeners stay open.
func (t *Taken) Close() error { return t.conn.unix.Close() }
