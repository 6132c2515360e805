package node_test

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	v1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"

	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/node"
)

// talk is what the image does with its input: it says each line on both outputs, and tells how large its terminal is and
// when the input is over.
func talk() {
	lines := bufio.NewScanner(os.Stdin)
	for lines.Scan() {
		switch text := lines.Text(); text {
		case "end":
			return
		case "size":
			size, err := unix.IoctlGetWinsize(0, unix.TIOCGWINSZ)
			if err != nil {
				size = &unix.Winsize{}
			}
			fmt.Println("size", size.Col, size.Row, os.Getenv("TERM"))
		default:
			fmt.Println("out", text)
			fmt.Fprintln(os.Stderr, "err", text)
		}
	}
	fmt.Println("input is over")
}

// talker is a client that is attached to a container.
type talker struct {
	t         *testing.T
	in        *io.PipeWriter
	out, errs *nettest.Journal
	ended     chan error
}

// attach attaches to the container of a pod; the client has an input if it says so in the query, and a terminal.
func (w *world) attach(pod, query string) *talker {
	w.t.Helper()
	who := authenticator.RequestFunc(func(*http.Request) (*authenticator.Response, bool, error) {
		return &authenticator.Response{User: &user.DefaultInfo{Name: "create proxy"}}, true, nil
	})
	s := httptest.NewServer(node.Routes(w.agent, node.NewGate("node-1", who, fakeRights{})))
	w.t.Cleanup(s.Close)
	at, err := url.Parse(s.URL + "/attach/default/" + pod + "/main?" + query)
	if err != nil {
		w.t.Fatal(err)
	}
	e, err := remotecommand.NewSPDYExecutor(&rest.Config{Host: s.URL}, http.MethodPost, at)
	if err != nil {
		w.t.Fatal(err)
	}
	k := &talker{t: w.t, out: &nettest.Journal{}, errs: &nettest.Journal{}, ended: make(chan error, 1)}
	o := remotecommand.StreamOptions{Stdout: k.out}
	if strings.Contains(query, "input=1") {
		o.Stdin, k.in = io.Pipe()
		w.t.Cleanup(func() { k.in.Close() })
	}
	if o.Tty = strings.Contains(query, "tty=1"); o.Tty {
		o.TerminalSizeQueue = &oneSize{size: &remotecommand.TerminalSize{Width: 123, Height: 45}}
	} else {
		o.Stderr = k.errs
	}
	ctx, cancel := context.WithCancel(context.Background())
	w.t.Cleanup(cancel)
	go func() { k.ended <- e.StreamWithContext(ctx, o) }()
	return k
}

// oneSize is a terminal that never changes.
type oneSize struct{ size *remotecommand.TerminalSize }

func (s *oneSize) Next() *remotecommand.TerminalSize {
	size := s.size
	s.size = nil
	return size
}

func (k *talker) say(text string) {
	k.t.Helper()
	if _, err := io.WriteString(k.in, text+"\n"); err != nil {
		k.t.Fatal(err)
	}
}

func (k *talker) hears(from *nettest.Journal, text string) {
	k.t.Helper()
	eventually(k.t, "the client has "+text, func() bool { return strings.Contains(from.String(), text) })
}

func (k *talker) ends(want string) {
	k.t.Helper()
	select {
	case err := <-k.ended:
		if got := fmt.Sprint(err); !strings.Contains(got, want) {
			k.t.Errorf("attach ended with %q, want %q", got, want)
		}
	case <-time.After(10 * time.Second):
		k.t.Fatal("attach does not end")
	}
}

// talks makes a pod that talks, with what else its container has.
func (w *world) talks(name string, change func(*v1.Container)) {
	w.t.Helper()
	pod := w.pod(name, "talk")
	pod.Spec.RestartPolicy = v1.RestartPolicyNever
	c := &pod.Spec.Containers[0]
	c.ReadinessProbe, c.Stdin = nil, true
	change(c)
	w.create(pod)
	w.await(name, "ready", isReady)
}

func TestAttach(t *testing.T) {
	w := newWorld(t)
	w.talks("web", func(*v1.Container) {})
	first := w.attach("web", "input=1&output=1&error=1")
	watcher := w.attach("web", "output=1&error=1")
	for i := 0; !strings.Contains(watcher.out.String(), "out hello"); i++ { // a client hears what is said once it is there
		first.say(fmt.Sprint("hello ", i))
		first.hears(first.out, fmt.Sprint("out hello ", i))
		first.hears(first.errs, fmt.Sprint("err hello ", i))
	}
	if strings.Contains(first.out.String(), "err") || strings.Contains(first.errs.String(), "out") {
		t.Errorf("outputs are mixed: %q and %q", first.out, first.errs)
	}
	first.in.Close()
	second := w.attach("web", "input=1&output=1&error=1") // the input outlives its first client
	second.say("again")
	second.hears(second.errs, "err again")
	watcher.hears(watcher.out, "out again")
	second.say("end")
	for _, k := range []*talker{first, second, watcher} {
		k.ends("<nil>")
	}
	eventually(t, "the log has both outputs", func() bool {
		return strings.Contains(w.log("web"), " out again\n") && strings.Contains(w.log("web"), " err again\n")
	})
	w.attach("web", "output=1").ends("does not run")
}

func TestAttachEndsInputOfOneClient(t *testing.T) {
	w := newWorld(t)
	w.talks("web", func(c *v1.Container) { c.StdinOnce = true })
	k := w.attach("web", "input=1&output=1&error=1")
	k.say("hello")
	k.hears(k.out, "out hello")
	k.in.Close()
	k.hears(k.out, "input is over")
	k.ends("<nil>")
}

func TestAttachToTerminal(t *testing.T) {
	w := newWorld(t)
	w.talks("web", func(c *v1.Container) { c.TTY = true })
	k := w.attach("web", "input=1&output=1&tty=1")
	for i := 0; !strings.Contains(k.out.String(), "size 123 45 xterm\r\n") && i < 100; i++ { // the size comes on a stream of its own
		k.say("size")
		k.hears(k.out, "size ")
	}
	k.say("hello")
	k.hears(k.out, "\nhello\r\n") // as the terminal echoes it
	k.hears(k.out, "err hello\r\n")
	k.hears(k.out, "size 123 45 xterm\r\n")
	k.say("end")
	k.ends("<nil>")
}

func TestAttachWithoutInput(t *testing.T) {
	w := newWorld(t)
	w.create(w.pod("web", "serve"))
	url := "http://" + w.await("web", "ready", isReady).Status.PodIP + ":8080/write?path=/proc/1/fd/1"
	w.attach("web", "input=1&output=1&error=1").ends("no standard input")
	k := w.attach("web", "output=1&error=1")
	eventually(t, "it is attached", func() bool { w.get(url); return strings.Contains(k.out.String(), "x") })
	w.delete("web", 5)
	k.hears(k.out, "SIGTERM seen")
	k.ends("<nil>")
}

func TestSlowClientIsLeftBehind(t *testing.T) {
	var log bytes.Buffer
	o := node.NewOutput(&log)
	slow, never := node.Follow(o), node.Follow(o)
	for range node.Backlog {
		fmt.Fprintln(o, "x")
	}
	var got bytes.Buffer
	fmt.Fprintln(o, "one more") // nobody waits for room
	if err := node.CopyTo(slow, &got); !errors.Is(err, node.ErrSlow) {
		t.Errorf("error %v, want %v", err, node.ErrSlow)
	}
	node.EndOutput(o)
	if n := strings.Count(got.String(), "x\n"); n != node.Backlog {
		t.Errorf("the client got %d lines, want %d", n, node.Backlog)
	}
	if n := strings.Count(log.String(), "\n"); n != node.Backlog+1 {
		t.Errorf("the log has %d lines, want %d", n, node.Backlog+1)
	}
	if err := node.CopyTo(never, io.Discard); !errors.Is(err, node.ErrSlow) {
		t.Errorf("error %v of the other, want %v", err, node.ErrSlow)
	}
	if err := node.CopyTo(node.Follow(o), io.Discard); err != nil {
		t.Errorf("error %v of one that comes after the end", err)
	}
}
