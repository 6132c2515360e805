package nft

import (
	"encoding/binary"
	"errors"
	"os"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
	"varco.dev/internal/kernel"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// sick is a kernel that answers a single question with an error, or a transaction with one for its first message.
type sick struct {
	question, transaction unix.Errno
	answers               [][]byte
}

func (s *sick) close() error { return nil }

func (s *sick) send(sent []byte) error {
	kind, errno := binary.NativeEndian.Uint16(sent[4:]), s.question
	if kind == unix.NFNL_MSG_BATCH_BEGIN {
		errno = s.transaction
	}
	b := batch{next: binary.NativeEndian.Uint32(sent[8:])}
	b.header(unix.NLMSG_ERROR, 0)
	b.buffer = binary.NativeEndian.AppendUint32(b.buffer, uint32(-int32(errno)))
	b.buffer = append(b.buffer, sent[:unix.NLMSG_HDRLEN]...)
	b.close()
	s.answers = append(s.answers, b.buffer)
	return nil
}

func (s *sick) receive(bool) ([]byte, error) {
	if len(s.answers) == 0 {
		return nil, nil
	}
	first := s.answers[0]
	s.answers = s.answers[1:]
	return first, nil
}

// TestCheckExplains answers as kernels do that lack nf_tables or a part of it, or that do not let this process use it.
func TestCheckExplains(t *testing.T) {
	for _, c := range []struct {
		name                  string
		question, transaction unix.Errno
		want                  string // part of the error
		unsupported           bool
	}{
		{"no nf_tables", unix.EINVAL, 0, "lacks nf_tables (CONFIG_NF_TABLES): use Linux 5.13", true},
		{"no netfilter", unix.EOPNOTSUPP, 0, "lacks nf_tables", true},
		{"an expression is missing", 0, unix.ENOENT, "_NUMGEN", true},
		{"not allowed", unix.EPERM, 0, "needs root", false},
		{"out of memory", 0, unix.ENOMEM, "cannot allocate memory", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			k := NewNetlink(Config{Families: []service.Family{service.IPv4, service.IPv6}})
			k.open = func(int) (wire, uint32, error) {
				return &sick{question: c.question, transaction: c.transaction}, 1, nil
			}
			err := k.Check(t.Context())
			if err == nil || !strings.Contains(err.Error(), c.want) || strings.Contains(err.Error(), "\n") {
				t.Fatalf("got error %v, want one line with %q", err, c.want)
			}
			unsupported, ok := errors.AsType[*kernel.UnsupportedError](err)
			if ok != c.unsupported || errors.Is(err, errors.ErrUnsupported) != c.unsupported {
				t.Errorf("got %T", err)
			}
			if ok && unsupported.MinVersion != "5.13" {
				t.Errorf("got minimum version %q", unsupported.MinVersion)
			}
		})
	}
}

// broken is a wire that fails after a number of calls, or never answers.
type broken struct {
	wire
	calls  int
	silent bool
	closed bool
}

func (b *broken) send(messages []byte) error {
	if b.calls--; b.calls < 0 {
		return unix.ENOBUFS
	}
	return b.wire.send(messages)
}

func (b *broken) receive(wait bool) ([]byte, error) {
	if b.calls--; b.calls < 0 {
		return nil, unix.ENOBUFS
	}
	if b.silent {
		return nil, os.ErrDeadlineExceeded
	}
	return b.wire.receive(wait)
}

func (b *broken) close() error {
	b.closed = true
	return b.wire.close()
}

// TestFailedSocketIsReplaced has the socket fail at each call: the commit must say so, and the next one must not take what
// was left over for its own answer.
func TestFailedSocketIsReplaced(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	for name, first := range map[string]*broken{
		"send": {}, "first answer": {calls: 1}, "rest of the answers": {calls: 2}, "no answer": {calls: 9, silent: true},
	} {
		t.Run(name, func(t *testing.T) {
			k := NewNetlink(Config{Families: []service.Family{service.IPv4, service.IPv6}, MasqueradeMark: 1, NetNS: ns.FD()})
			defer k.Close()
			usual, opened := k.open, 0
			k.open = func(netns int) (wire, uint32, error) {
				w, id, err := usual(netns)
				if opened++; opened == 1 {
					first.wire = w
					w = first
				}
				return w, id, err
			}
			tx := Transaction{Replace: true, Generation: 7}
			if err := k.Commit(t.Context(), tx); err == nil || !first.closed {
				t.Fatalf("error %v, socket closed: %t", err, first.closed)
			}
			for range 2 {
				if err := k.Commit(t.Context(), tx); err != nil {
					t.Fatal(err)
				}
			}
			if c, err := k.Read(t.Context()); err != nil || !c.Sound || c.Generation != 7 || opened != 2 {
				t.Errorf("got %+v, error %v, opened %d sockets", c, err, opened)
			}
		})
	}
}
