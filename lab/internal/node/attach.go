package node

import (
	"context"
	"io"
	"net/http"
	"os"

	"golang.org/x/sys/unix"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// serveAttach joins a client to what a container reads and prints, for kubectl attach.
func (a *Agent) serveAttach(w http.ResponseWriter, r *http.Request) {
	p, options := a.findStreams(w, r)
	switch {
	case p == nil: // answered
	case options.Stdin && !p.takesInput(r.PathValue("container")):
		http.Error(w, "the container has no standard input: its spec would say stdin: true", http.StatusBadRequest)
	default:
		remotecommand.ServeAttach(w, r, attacher{p, options.Stdin}, "", "", r.PathValue("container"), options,
			streamIdle, streamCreation, remotecommand.SupportedStreamingProtocols)
	}
}

// takesInput says whether a container of the pod has an input.
func (p *pod) takesInput(container string) bool {
	r, err := p.runningNow(container)
	return err == nil && r.std.in != nil
}

// attacher attaches a client to the containers of a pod.
type attacher struct {
	pod   *pod
	input bool // the client wants to write; a WebSocket has a stream for that in any case
}

// AttachContainer is in remotecommand.Attacher. It returns when the container has ended, ctx ends or the client does not
// take its output; the end of the client's input is not the end of its output. Whether there is a terminal, and whether there
// is an input, is the container's to say.
func (a attacher) AttachContainer(ctx context.Context, _, _, container string, in io.Reader, out, errs io.WriteCloser, _ bool, resize <-chan remotecommand.TerminalSize) error {
	r, err := a.pod.runningNow(container)
	if err != nil {
		return err
	}
	if r.std.terminal != nil {
		go followSize(r.std.terminal, resize) // ends with the connection
	}
	if a.input && r.std.in != nil {
		go r.std.feed(in) // ends with the connection
	}
	return r.std.show(ctx, out, errs)
}

// feed writes a client's input to the container.
func (s *streams) feed(from io.Reader) {
	_, _ = io.Copy(s.in, from) // the client or the container has ended
	if s.once && s.terminal == nil {
		s.in.Close()
	}
}

// show writes what the container prints to a client; a nil writer is a stream that the client does not want.
func (s *streams) show(ctx context.Context, out, errs io.Writer) error {
	ended := make(chan error, 2)
	for o, w := range map[*output]io.Writer{s.out: out, s.errs: errs} {
		if w == nil {
			w = io.Discard
		}
		c := o.follow()
		defer o.leave(c)
		go func() { ended <- c.copyTo(w) }()
	}
	for range 2 {
		select {
		case err := <-ended:
			if err != nil {
				return err
			}
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// followSize gives a terminal the size of the client's; one that is closed meanwhile is fine.
func followSize(terminal *os.File, sizes <-chan remotecommand.TerminalSize) {
	if sizes == nil {
		return // the client has no terminal, or its protocol no sizes
	}
	conn, err := terminal.SyscallConn()
	for size := range sizes {
		if err != nil {
			continue // whoever sends must not wait
		}
		err = conn.Control(func(fd uintptr) {
			_ = unix.IoctlSetWinsize(int(fd), unix.TIOCSWINSZ, &unix.Winsize{Row: size.Height, Col: size.Width})
		})
	}
}
