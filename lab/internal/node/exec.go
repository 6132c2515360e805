package node

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"time"

	"k8s.io/cri-streaming/pkg/streaming/portforward"
	"k8s.io/cri-streaming/pkg/streaming/remotecommand"
)

// Limits of streams, the kubelet's defaults.
const (
	streamIdle     = 4 * time.Hour
	streamCreation = 30 * time.Second
)

// serveExec runs a command in a container, for kubectl exec.
func (a *Agent) serveExec(w http.ResponseWriter, r *http.Request) {
	command := r.URL.Query()["command"]
	if len(command) == 0 {
		http.Error(w, "no command given", http.StatusBadRequest)
		return
	}
	if p, options := a.findStreams(w, r); p != nil {
		remotecommand.ServeExec(w, r, executor{p}, "", "", r.PathValue("container"), command, options,
			streamIdle, streamCreation, remotecommand.SupportedStreamingProtocols)
	}
}

// findStreams finds the pod that a request is about and the streams that it wants, or answers it and returns no pod.
func (a *Agent) findStreams(w http.ResponseWriter, r *http.Request) (*pod, *remotecommand.Options) {
	options, err := remotecommand.NewOptions(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return nil, nil
	}
	p := a.find(r)
	if p == nil {
		http.Error(w, "no such pod on this node", http.StatusNotFound)
		return nil, nil
	}
	// An error that comes once the connection is the streams' can reach a client before it has opened them all, which it
	// then waits for.
	if _, err := p.runningNow(r.PathValue("container")); err != nil {
		http.Error(w, err.Error(), http.StatusNotFound)
		return nil, nil
	}
	return p, options
}

// executor runs commands in the containers of a pod.
type executor struct{ pod *pod }

// ExecInContainer is in remotecommand.Executor.
func (e executor) ExecInContainer(ctx context.Context, _, _, container string, cmd []string, in io.Reader, out, errs io.WriteCloser, tty bool, resize <-chan remotecommand.TerminalSize, _ time.Duration) error {
	r, err := e.pod.runningNow(container)
	if err != nil {
		return err
	}
	spec := r.command(cmd, e.pod)
	if tty {
		return runTerminal(ctx, spec, terminal{in, out, resize})
	}
	// A nil writer in an interface is not a nil interface.
	if out != nil {
		spec.Stdout = out
	}
	if errs != nil {
		spec.Stderr = errs
	}
	if in != nil {
		// A pipe of our own: the process's end must not wait for the client to close its input.
		read, write, err := os.Pipe()
		if err != nil {
			return err
		}
		defer read.Close()
		spec.Stdin = read
		go func() { _, _ = io.Copy(write, in); write.Close() }() // ends with the connection
	}
	return run(ctx, spec)
}

// runningNow returns the run of a container that goes on.
func (p *pod) runningNow(container string) (*runningContainer, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if r := p.running[container]; r != nil {
		return r, nil
	}
	return nil, fmt.Errorf("container %s does not run", container)
}

// servePortForward connects to ports of a pod, for kubectl port-forward.
func (a *Agent) servePortForward(w http.ResponseWriter, r *http.Request) {
	options, err := portforward.NewV4Options(r)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	p := a.find(r)
	if p == nil {
		http.Error(w, "no such pod on this node", http.StatusNotFound)
		return
	}
	portforward.ServePortForward(w, r, forwarder{p}, "", "", options, streamIdle, streamCreation, portforward.SupportedProtocols)
}

// forwarder connects to ports of a pod on its loopback address.
type forwarder struct{ pod *pod }

// PortForward is in portforward.PortForwarder. It returns when both directions have ended.
func (f forwarder) PortForward(ctx context.Context, _, _ string, port int32, stream io.ReadWriteCloser) error {
	f.pod.mu.Lock()
	started := f.pod.rec.sandbox
	f.pod.mu.Unlock()
	if !started {
		return errors.New("the pod has no network yet")
	}
	c, err := f.pod.sandbox.ns.DialContext(ctx, "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(int(port))))
	if err != nil {
		return err
	}
	defer c.Close()
	ended := make(chan error, 1)
	go func() {
		_, err := io.Copy(c, stream)
		if half, ok := c.(*net.TCPConn); ok {
			_ = half.CloseWrite()
		}
		ended <- err
	}()
	if _, err := io.Copy(stream, c); err != nil {
		return err
	}
	stream.Close()
	return <-ended
}
