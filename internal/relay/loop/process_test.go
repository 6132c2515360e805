//go:build linux

package loop_test

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"varco.dev/internal/nettest"
	"varco.dev/internal/relay/loop"
)

// role is the variable by which this program, started again, is a part of a test instead of the tests.
const role = "VARCO_TEST_LOOP_ROLE"

func TestMain(m *testing.M) {
	run, ok := roles[os.Getenv(role)]
	if !ok {
		// A loop holds what it runs on while it waits. Commands leave the rest of the program room as well.
		runtime.GOMAXPROCS(runtime.NumCPU() + 2)
		flag.Parse()
		flag.Set("test.parallel", "32") // those that are parallel wait for timers of the kernel, and need no processor
		os.Exit(m.Run())
	}
	if err := run(bufio.NewScanner(os.Stdin)); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

// roles are told what to do line by line, and say what they have done in the same way. They end with their input.
var roles = map[string]func(*bufio.Scanner) error{"relay": beRelay, "peers": bePeers}

// process is this program in a role.
type process struct {
	*exec.Cmd
	in    io.WriteCloser
	lines chan string // what it says
}

// startProcess starts a role, in a namespace if there is one. It ends with the test.
func startProcess(t testing.TB, as string, in *nettest.Namespace) *process {
	t.Helper()
	p := &process{Cmd: exec.Command("/proc/self/exe"), lines: make(chan string, 1000)}
	p.Env = append(os.Environ(), role+"="+as)
	p.Stderr = os.Stderr
	var err error
	if p.in, err = p.StdinPipe(); err != nil {
		t.Fatal(err)
	}
	out, err := p.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	begin := p.Cmd.Start
	if in != nil {
		begin = func() error { return in.Start(p.Cmd) }
	}
	if err := begin(); err != nil {
		t.Fatal(err)
	}
	go func() {
		for s := bufio.NewScanner(out); s.Scan(); {
			p.lines <- s.Text()
		}
		close(p.lines)
	}()
	t.Cleanup(func() {
		p.in.Close()
		p.Process.Kill()
		p.Wait()
	})
	return p
}

// tell gives the process a line to read.
func (p *process) tell(t testing.TB, format string, args ...any) {
	t.Helper()
	if _, err := fmt.Fprintf(p.in, format+"\n", args...); err != nil {
		t.Fatal(err)
	}
}

// hear waits for the next line.
func (p *process) hear(t testing.TB) string {
	t.Helper()
	select {
	case line, ok := <-p.lines:
		if !ok {
			t.Fatal("the process has ended")
		}
		return line
	case <-time.After(3 * within):
		t.Fatal("the process says nothing")
	}
	return ""
}

// wants waits for these lines, and for no other ones between them.
func (p *process) wants(t testing.TB, lines ...string) {
	t.Helper()
	for _, want := range lines {
		if got := p.hear(t); got != want {
			t.Fatalf("got %q, want %q", got, want)
		}
	}
}

// beRelay reads lines: "files N" bounds how many files it may open; "keepalive DURATION" is one of loop.Timing; "relay
// LISTEN BACKEND…" starts the relay, of which it says the address, and then every event of the Balancer as "ATTEMPT EVENT".
func beRelay(in *bufio.Scanner) error {
	b := newBook()
	b.heard = func(n int, event string) { fmt.Println(n, event) }
	c := loop.Config{Workers: runtime.NumCPU(), Balancer: b, Log: slog.New(slog.DiscardHandler)}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	for in.Scan() {
		words := strings.Fields(in.Text())
		var err error
		switch words[0] {
		case "files":
			err = boundFiles(words[1])
		case "keepalive":
			c.Timing.KeepAlive, err = time.ParseDuration(words[1])
		case "relay":
			for _, s := range words[2:] {
				b.backends = append(b.backends, netip.MustParseAddrPort(s))
			}
			err = relayAt(ctx, words[1], c)
		}
		if err != nil {
			return err
		}
	}
	return in.Err()
}

func boundFiles(text string) error {
	n, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return err
	}
	return syscall.Setrlimit(syscall.RLIMIT_NOFILE, &syscall.Rlimit{Cur: n, Max: n})
}

func relayAt(ctx context.Context, address string, c loop.Config) error {
	var plain net.ListenConfig
	plain.SetMultipathTCP(false)
	l, err := plain.Listen(ctx, "tcp", address)
	if err != nil {
		return err
	}
	r := loop.New(c)
	if err := r.Listen(loop.Listener{Name: "front", Net: l.(*net.TCPListener)}); err != nil {
		return err
	}
	fmt.Println(l.Addr())
	go r.Run(ctx)
	return nil
}

// bePeers serves an echo and says where. For a line "dial N ADDRESS" it opens N connections, exchanges a word on each,
// says "ready", and keeps them.
func bePeers(in *bufio.Scanner) error {
	l, err := net.Listen("tcp", loopback)
	if err != nil {
		return err
	}
	go accept(l, echoes)
	fmt.Println(l.Addr())
	var clients []net.Conn // none is closed while it is reachable
	for in.Scan() {
		var n int
		var at string
		if _, err := fmt.Sscanf(in.Text(), "dial %d %s", &n, &at); err != nil {
			return err
		}
		for range n {
			c, err := net.Dial("tcp", at)
			if err != nil {
				return err
			}
			if err := tryExchange(c, []byte("hello")); err != nil {
				return err
			}
			clients = append(clients, c)
		}
		fmt.Println("ready")
	}
	for _, c := range clients {
		c.Close()
	}
	return in.Err()
}
