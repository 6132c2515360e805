//go:build linux

package loop_test

import (
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"runtime"
	"runtime/metrics"
	"sync"
	"testing"
	"time"

	"varco.dev/internal/relay/loop"
)

// TestLimits has room for fewer clients than there are: those beyond are reset, and get in when others have gone.
func TestLimits(t *testing.T) {
	for name, c := range map[string]struct {
		limits loop.Limits
		count  func(loop.Stats) uint64
	}{
		"connections": {loop.Limits{Connections: 3}, func(s loop.Stats) uint64 { return s.OverLimit }},
		"per source":  {loop.Limits{PerSource: 3}, func(s loop.Stats) uint64 { return s.OverSource }},
	} {
		t.Run(name, func(t *testing.T) {
			r := start(t, options{limits: c.limits}, serve(t, echoes))
			for round := range 3 {
				var clients []*net.TCPConn
				for range 3 {
					clients = append(clients, r.dial(t))
					exchange(t, clients[len(clients)-1], "hello")
				}
				_, err := ask(r.at)
				wantReset(t, err)
				eventually(t, "it is counted", func() bool { return c.count(r.Stats()) == uint64(round)+1 })
				for _, c := range clients {
					c.Close()
				}
				eventually(t, "no session is open any more", func() bool { return r.Stats().Open == 0 })
			}
		})
	}
}

// TestPerSource counts each IPv4 address for itself, and all addresses of an IPv6 /64 as one.
func TestPerSource(t *testing.T) {
	r := start(t, options{limits: loop.Limits{PerSource: 1}, listen: "0.0.0.0:0"}, serve(t, echoes))
	for i := range 5 {
		d := net.Dialer{LocalAddr: &net.TCPAddr{IP: net.IPv4(127, 0, 1, byte(i))}}
		c, err := d.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", r.at.Port()))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		exchange(t, c, "hello")
		second, err := d.DialContext(t.Context(), "tcp", fmt.Sprintf("127.0.0.1:%d", r.at.Port()))
		if err == nil {
			err = readError(second)
			second.Close()
		}
		wantReset(t, err)
	}
}

// TestSetLimits changes the limits while the relay runs.
func TestSetLimits(t *testing.T) {
	r := start(t, options{limits: loop.Limits{Connections: 1}}, serve(t, echoes))
	exchange(t, r.dial(t), "hello")
	_, err := ask(r.at)
	wantReset(t, err)
	r.SetLimits(loop.Limits{Connections: 2})
	exchange(t, r.dial(t), "hello")
	_, err = ask(r.at)
	wantReset(t, err)
}

// TestOpening has clients that do not come to the point.
func TestOpening(t *testing.T) {
	mine := []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}
	for name, c := range map[string]struct {
		says     string
		listener loop.Listener
		story    []string
	}{
		"no byte":                    {"", loop.Listener{}, []string{"Connected Ended"}},
		"no byte of a PROXY header":  {"", loop.Listener{ProxyFrom: mine}, nil},
		"one byte of a PROXY header": {"P", loop.Listener{ProxyFrom: mine}, nil},
		"no byte after a header":     {"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n", loop.Listener{ProxyFrom: mine}, []string{"Connected Ended"}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			quiet, _ := silent(t)
			r := start(t, options{listener: c.listener, timing: loop.Timing{Opening: 300 * time.Millisecond}}, quiet)
			begin, client := time.Now(), r.dial(t)
			io.WriteString(client, c.says)
			readError(client)
			if took := time.Since(begin); took < 300*time.Millisecond || took > 3*time.Second {
				t.Errorf("ended after %v, want 300 ms", took)
			}
			r.wants(t, c.story...)
			eventually(t, "it is counted", func() bool { return r.Stats().Ended[loop.OpeningSlow] == 1 })
		})
	}
}

// TestOpeningIsOver wants a session to live on after the time for its opening once one side has spoken.
func TestOpeningIsOver(t *testing.T) {
	for name, server := range map[string]func(*net.TCPConn){
		"server": func(c *net.TCPConn) { io.WriteString(c, "x"); echoes(c) },
		"client": func(c *net.TCPConn) { io.ReadFull(c, make([]byte, 1)); echoes(c) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r := start(t, options{timing: loop.Timing{Opening: 100 * time.Millisecond}}, serve(t, server))
			client := r.dial(t)
			switch name {
			case "server":
				io.ReadFull(client, make([]byte, 1))
			case "client":
				io.WriteString(client, "x")
			}
			time.Sleep(1500 * time.Millisecond) // it is the time that must not matter; a loop looks at its sessions once a second
			exchange(t, client, "still there")
		})
	}
}

// usage is what a process has open.
type usage struct{ fds, goroutines int }

func used() usage {
	d, _ := os.ReadDir("/proc/self/fd")
	return usage{len(d), runtime.NumGoroutine()}
}

// TestNothingIsLeft opens and drops 10,000 connections in all phases of their life: all descriptors, goroutines and slots
// come back.
func TestNothingIsLeft(t *testing.T) {
	hole := blackHole(t)
	quiet, flights := silent(t)
	go func() {
		for range flights {
		}
	}()
	echo := serve(t, echoes)
	r := start(t, options{
		limits: loop.Limits{Connections: 5000, PerSource: 5000}, timing: loop.Timing{Connect: 100 * time.Millisecond, Hello: 100 * time.Millisecond},
	}, echo)
	exchange(t, r.dial(t), "hello") // what is made once is there
	for name, backends := range map[string][]netip.AddrPort{
		"in order": {echo}, "refused": {absent(t), echo}, "dropped": {hole}, "dropped, then in order": {hole, echo},
		"silent": {quiet, echo}, "none": nil,
	} {
		r.set(backends...)
		before := used()
		n := 10_000 / 6
		if name == "dropped" || name == "dropped, then in order" || name == "silent" {
			n = 1_000
		}
		open := r.Stats().Open
		dropAll(t, r, n)
		eventually(t, name+": sessions are closed", func() bool { return r.Stats().Open == open })
		eventually(t, name+": descriptors and goroutines are gone", func() bool {
			now := used()
			return now.fds <= before.fds && now.goroutines <= before.goroutines
		})
	}
}

// dropAll opens connections and drops each in one of several ways.
func dropAll(t *testing.T, r *running, n int) {
	var wg sync.WaitGroup
	turns := make(chan int)
	for range 32 {
		wg.Go(func() {
			for i := range turns {
				if c, err := net.Dial("tcp", r.at.String()); err == nil {
					drops[i%len(drops)](c.(*net.TCPConn))
				}
			}
		})
	}
	for i := range n {
		turns <- i
	}
	close(turns)
	wg.Wait()
}

// drops are ways to leave.
var drops = []func(*net.TCPConn){
	abort,
	func(c *net.TCPConn) { c.Close() },
	func(c *net.TCPConn) { io.WriteString(c, helloOf(20)); abort(c) },
	func(c *net.TCPConn) { io.WriteString(c, helloOf(20)); c.Close() },
	func(c *net.TCPConn) {
		c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		tryExchange(c, []byte(helloOf(20)))
		abort(c)
	},
	func(c *net.TCPConn) {
		c.SetDeadline(time.Now().Add(300 * time.Millisecond))
		tryExchange(c, []byte("hello"))
		c.Close()
	},
	func(c *net.TCPConn) { // leaves in the middle of what it sends, and reads nothing
		c.SetWriteDeadline(time.Now().Add(20 * time.Millisecond))
		c.Write(make([]byte, 1<<20))
		abort(c)
	},
	func(c *net.TCPConn) { c.CloseWrite(); abort(c) },
}

const (
	idle        = 5000
	budget      = 12 << 10 // bytes of user memory for each idle connection
	descriptors = 2        // for each idle connection
)

// TestIdle has 5,000 idle connections, whose other ends are in another process, and looks at what each of them takes.
func TestIdle(t *testing.T) {
	peers := startProcess(t, "peers", nil)
	backend := netip.MustParseAddrPort(peers.hear(t))
	r := start(t, options{}, backend)
	peers.tell(t, "dial 100 %v", r.at) // what is made once is there
	peers.wants(t, "ready")
	before, fds := memory(), used().fds
	peers.tell(t, "dial %d %v", idle, r.at)
	peers.wants(t, "ready")
	if s := r.Stats(); s.Open != idle+100 {
		t.Fatalf("%d sessions are open, want %d", s.Open, idle+100)
	}
	after := memory()
	t.Logf("%.2f KiB and %.3f descriptors for each", float64(after-before)/1024/idle, float64(used().fds-fds)/idle)
	if got := (after - before) / idle; got > budget {
		t.Errorf("each takes %d bytes, want at most %d", got, budget)
	}
	if got := used().fds - fds; got != descriptors*idle {
		t.Errorf("%d descriptors for %d connections, want %d", got, idle, descriptors*idle)
	}
	peers.in.Close()
	eventually(t, "no session is open any more", func() bool { return r.Stats().Open == 0 })
}

// memory is what the heap and the stacks of this process take, free parts of spans that are in use included.
func memory() int64 {
	runtime.GC()
	samples := []metrics.Sample{
		{Name: "/memory/classes/heap/objects:bytes"}, {Name: "/memory/classes/heap/unused:bytes"},
		{Name: "/memory/classes/heap/stacks:bytes"}, {Name: "/memory/classes/os-stacks:bytes"},
	}
	metrics.Read(samples)
	var sum int64
	for _, s := range samples {
		sum += int64(s.Value.Uint64())
	}
	return sum
}

// TestMemoryIsBounded has readers that do not read while much is sent: the sender is held back, and what the relay keeps
// of it is small; nothing is lost when they begin.
func TestMemoryIsBounded(t *testing.T) {
	const clients, size = 20, 16 << 20
	begin := make(chan struct{})
	results := make(chan heard, clients)
	r := start(t, options{}, serve(t, func(c *net.TCPConn) {
		sent := make(chan error, 1)
		go func() { sent <- send(c, 2, size) }()
		<-begin
		s, err := sumOf(c)
		<-sent
		results <- heard{s, err}
	}))
	before := memory()
	var wg sync.WaitGroup
	got := make([]heard, clients)
	for i := range clients {
		client := r.dial(t)
		client.SetDeadline(time.Now().Add(6 * within))
		wg.Go(func() {
			sent := make(chan error, 1)
			go func() { sent <- send(client, 1, size) }()
			<-begin
			s, err := sumOf(client)
			<-sent
			got[i] = heard{s, err}
		})
	}
	stuck(t, r)
	if grown := memory() - before; grown > clients*1<<20 {
		t.Errorf("%d bytes are kept for each, want at most 1 MiB", grown/clients)
	}
	close(begin)
	wg.Wait()
	for i := range clients {
		wantFlow(t, fmt.Sprint("client ", i), got[i], 2, size)
		wantFlow(t, fmt.Sprint("backend ", i), <-results, 1, size)
	}
}

// stuck waits until no byte moves any more.
func stuck(t *testing.T, r *running) {
	t.Helper()
	last, since := uint64(0), time.Now()
	eventually(t, "no byte moves", func() bool {
		if s := r.Stats(); s.In+s.Out != last {
			last, since = s.In+s.Out, time.Now()
		}
		return last > 0 && time.Since(since) > 300*time.Millisecond
	})
}

// TestFewFiles has a relay that may open few files: those who do not get in at once do so when others have left.
func TestFewFiles(t *testing.T) {
	p := startProcess(t, "relay", nil)
	p.tell(t, "files 40")
	p.tell(t, "relay %s %v", loopback, serve(t, echoes))
	at := netip.MustParseAddrPort(p.hear(t))
	var clients []net.Conn
	for range 60 {
		if c, err := net.Dial("tcp", at.String()); err == nil { // else it was reset while it looked
			c.SetDeadline(time.Now().Add(within))
			io.WriteString(c, "hello")
			clients = append(clients, c)
		}
	}
	served := 0
	for _, c := range clients { // some get in, some are reset, others wait until these are gone
		if b := make([]byte, 5); reads(c, b) && string(b) == "hello" {
			served++
		}
		c.Close()
	}
	if served < 5 {
		t.Errorf("%d clients were served, want at least 5", served)
	}
	eventually(t, "a new client is served", func() bool {
		c, err := net.Dial("tcp", at.String())
		if err != nil {
			return false
		}
		defer c.Close()
		c.SetDeadline(time.Now().Add(within))
		return tryExchange(c, []byte("after")) == nil
	})
}
