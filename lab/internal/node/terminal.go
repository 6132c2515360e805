package node

import (
	"context"
	"fmt"
	"io"
	"os"
	"slices"

	"golang.org/x/sys/unix"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// terminal is the client's side of an interactive command.
type terminal struct {
	in     io.Reader // may be nil
	out    io.Writer
	resize <-chan remotecommand.TerminalSize
}

// openTerminal opens a pseudo-terminal: our end and the command's.
func openTerminal() (ours, theirs *os.File, err error) {
	if ours, err = os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0); err != nil {
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	if err = unix.IoctlSetPointerInt(int(ours.Fd()), unix.TIOCSPTLCK, 0); err == nil {
		var n uint32
		if n, err = unix.IoctlGetUint32(int(ours.Fd()), unix.TIOCGPTN); err == nil {
			theirs, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
		}
	}
	if err != nil {
		ours.Close()
		return nil, nil, fmt.Errorf("open terminal: %w", err)
	}
	return ours, theirs, nil
}

// runTerminal is run with a terminal of the client's.
func runTerminal(ctx context.Context, s processSpec, t terminal) error {
	ours, theirs, err := openTerminal()
	if err != nil {
		return err
	}
	defer ours.Close()
	s.Stdin, s.Stdout, s.Stderr, s.Terminal = theirs, theirs, theirs, true
	s.Env = append(slices.Clone(s.Env), "TERM=xterm")
	go followSize(ours, t.resize)
	if t.in != nil {
		go func() { _, _ = io.Copy(ours, t.in) }() // ends with the connection
	}
	copied := make(chan struct{})
	go func() { _, _ = io.Copy(t.out, ours); close(copied) }() // ends when the last process closes its end
	err = run(ctx, s)
	theirs.Close()
	select {
	case <-copied:
	case <-ctx.Done():
	}
	return err
}
