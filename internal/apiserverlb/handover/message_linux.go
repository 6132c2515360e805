package handover

import (
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"syscall"
	"time"
)

// protocol is the version of what the processes say to each other. Both must speak the same.
const protocol = 1

const (
	// MaxListeners are handed over at most.
	MaxListeners = 128

	maxMessage = 4096            // bytes of one message
	answerTime = 5 * time.Second // for a message that needs no thought
)

// message is one datagram, as JSON. The successor asks (take), is offered a number of listeners (offer), gets each of
// them (listener, with the descriptor), says when it serves (done), and hears that the other does no longer (taken).
// Instead of any answer it may be refused.
type message struct {
	Version int    `json:"version"`
	Kind    string `json:"kind"`
	Count   int    `json:"count,omitempty"`  // offer: of listeners
	Name    string `json:"name,omitempty"`   // listener
	Reason  string `json:"reason,omitempty"` // refused
}

// The kinds.
const (
	kindTake     = "take"
	kindOffer    = "offer"
	kindListener = "listener"
	kindDone     = "done"
	kindTaken    = "taken"
	kindRefused  = "refused"
)

// conn is a connection between the processes. A message is a packet (SOCK_SEQPACKET).
type conn struct{ unix *net.UnixConn }

// send sends a message, with another descriptor of the listener if one is given.
func (c conn) send(m message, l *net.TCPListener) error {
	m.Version = protocol
	data, err := json.Marshal(m)
	if err != nil {
		return fmt.Errorf("write a message: %w", err)
	}
	if l == nil {
		return c.write(data, nil)
	}
	// The descriptor is used as it is: l.File would copy it, and its Fd would make the socket blocking for all.
	raw, err := l.SyscallConn()
	if err != nil {
		return fmt.Errorf("pass on a listener: %w", err)
	}
	var sent error
	if err := raw.Control(func(fd uintptr) { sent = c.write(data, syscall.UnixRights(int(fd))) }); err != nil {
		return fmt.Errorf("pass on a listener: %w", err)
	}
	return sent
}

func (c conn) write(data, rights []byte) error {
	if _, _, err := c.unix.WriteMsgUnix(data, rights, nil); err != nil {
		return fmt.Errorf("send a message: %w", err)
	}
	return nil
}

// receive waits for a message of a kind, until the deadline if there is one. f is the descriptor that came with a listener,
// if any; one that comes with anything else is closed.
func (c conn) receive(kind string, until time.Time) (m message, f *os.File, err error) {
	_ = c.unix.SetReadDeadline(until) // an error shows in the read
	data, rights := make([]byte, maxMessage), make([]byte, syscall.CmsgSpace(4*maxRights))
	n, nr, _, _, err := c.unix.ReadMsgUnix(data, rights)
	if errors.Is(err, syscall.ECONNRESET) {
		// The other end has not read all before it was closed. What it sent last is still to be read.
		n, nr, _, _, err = c.unix.ReadMsgUnix(data, rights)
	}
	if err != nil {
		return m, nil, fmt.Errorf("wait for %s: %w", kind, err)
	}
	if f, err = descriptor(rights[:nr]); err != nil {
		return m, nil, err
	}
	if err = json.Unmarshal(data[:n], &m); err != nil {
		err = fmt.Errorf("read a message: %w", err)
	} else {
		err = m.check(kind)
	}
	if f != nil && (err != nil || kind != kindListener) {
		err, f = errors.Join(err, f.Close()), nil
	}
	return m, f, err
}

// check says what is wrong with a message where one of a kind is due.
func (m message) check(kind string) error {
	switch {
	case m.Version != protocol:
		return fmt.Errorf("the other process speaks version %d of the protocol, and this one version %d: one must end before the other starts", m.Version, protocol)
	case m.Kind == kindRefused:
		return &refusedError{m.Reason}
	case m.Kind != kind:
		return fmt.Errorf("got message %q where %s is due", m.Kind, kind)
	}
	return nil
}

// refusedError is the other's no.
type refusedError struct{ reason string }

func (e *refusedError) Error() string { return "the other process refuses: " + e.reason }

// maxRights are the descriptors that fit into what is read of a message; one is sent.
const maxRights = 4

// descriptor takes the only descriptor out of a control message, nil if there is none.
func descriptor(rights []byte) (*os.File, error) {
	messages, err := syscall.ParseSocketControlMessage(rights)
	if err != nil {
		return nil, fmt.Errorf("read a control message: %w", err)
	}
	var fds []int
	for _, m := range messages {
		more, err := syscall.ParseUnixRights(&m)
		if err != nil {
			return nil, fmt.Errorf("read a control message: %w", err)
		}
		fds = append(fds, more...)
	}
	if len(fds) == 1 {
		return os.NewFile(uintptr(fds[0]), "listener"), nil
	}
	for _, fd := range fds {
		_ = syscall.Close(fd)
	}
	if len(fds) > 1 {
		return nil, fmt.Errorf("got %d descriptors in one message", len(fds))
	}
	return nil, nil
}

// peer returns the other process. It must belong to the same user, or to root.
func (c conn) peer() (pid int, err error) {
	raw, err := c.unix.SyscallConn()
	if err != nil {
		return 0, fmt.Errorf("ask for the user at the other end: %w", err)
	}
	var who *syscall.Ucred
	controlled := raw.Control(func(fd uintptr) {
		who, err = syscall.GetsockoptUcred(int(fd), syscall.SOL_SOCKET, syscall.SO_PEERCRED)
	})
	if err = errors.Join(controlled, err); err != nil {
		return 0, fmt.Errorf("ask for the user at the other end: %w", err)
	}
	if own := os.Geteuid(); who.Uid != 0 && int(who.Uid) != own {
		return 0, fmt.Errorf("the process at the other end, %d, belongs to user %d, neither to this one, %d, nor to root", who.Pid, who.Uid, own)
	}
	return int(who.Pid), nil
}
