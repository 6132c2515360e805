//go:build linux

package loop

import (
	"net/netip"
	"slices"
	"syscall"
	"testing"
	"unsafe"
)

// TestQueue sets, moves and stops timers, and wants those that are left in their order.
func TestQueue(t *testing.T) {
	var a, b queue
	a.open()
	b.open()
	sessions := make([]session, 4)
	for i := range sessions {
		sessions[i].index = uint32(i)
		sessions[i].phase.session = &sessions[i]
		a.set(&sessions[i].phase, int64(i))
	}
	a.set(&sessions[0].phase, 10) // again
	b.set(&sessions[1].phase, 11) // elsewhere
	sessions[2].phase.stop()
	sessions[2].phase.stop() // again
	if at, ok := a.first(); !ok || at != 3 {
		t.Errorf("the first expires at %d, %v; want 3", at, ok)
	}
	var got []uint32
	note := func(s *session) { got = append(got, s.index) }
	a.expire(9, note)
	a.expire(10, note)
	b.expire(11, note)
	if want := []uint32{3, 0, 1}; len(got) != 3 || got[0] != want[0] || got[1] != want[1] || got[2] != want[2] {
		t.Errorf("expired: %v, want %v", got, want)
	}
	if _, ok := a.first(); ok {
		t.Error("a queue is not empty at the end")
	}
}

// TestQueueSorts sets timers that do not come in the order in which they expire.
func TestQueueSorts(t *testing.T) {
	var q queue
	q.open()
	sessions := make([]session, 5)
	for i, at := range []int64{5, 9, 1, 7, 5} {
		sessions[i].phase.session = &sessions[i]
		q.set(&sessions[i].phase, at)
	}
	var got []int64
	for at := range int64(10) {
		q.expire(at, func(*session) { got = append(got, at) })
	}
	if want := []int64{1, 5, 5, 7, 9}; !slices.Equal(got, want) {
		t.Errorf("expired at %v, want %v", got, want)
	}
}

// TestHelloSize has beginnings of flights.
func TestHelloSize(t *testing.T) {
	for _, c := range []struct {
		b    string
		size int
		ok   bool
	}{
		{"\x16", 0, true}, {"\x16\x03", 0, true}, {"\x16\x03\x01\x00\x10", 0, true}, {"\x16\x03\x01\x00\x10\x01\x00\x00", 0, true},
		{"\x16\x03\x01\x00\x10\x01\x00\x00\x0c", 21, true}, {"\x16\x03\x03\x02\x04\x01\x00\x02\x00and so on", 521, true},
		{"\x15", 0, false}, {"\x16\x02", 0, false}, {"\x16\x03\x01\x00\x10\x02", 0, false}, {"G", 0, false},
		{"\x16\x03\x01\x00\x10\x01\x00\x00\x0d", 21, false}, {"\x16\x03\x01\x00\x10\x01\x01\x00\x0c", 21, false},
	} {
		if size, ok := helloSize([]byte(c.b)); size != c.size || ok != c.ok {
			t.Errorf("%q: got %d, %v; want %d, %v", c.b, size, ok, c.size, c.ok)
		}
	}
}

// TestWantsHeader wants the zone of a peer to make no difference.
func TestWantsHeader(t *testing.T) {
	l := &listener{Listener: Listener{ProxyFrom: []netip.Prefix{netip.MustParsePrefix("fe80::/10"), netip.MustParsePrefix("192.0.2.0/24")}}}
	for peer, want := range map[string]bool{"fe80::1%2": true, "fe80::1": true, "192.0.2.9": true, "2001:db8::1": false} {
		if got := l.wantsHeader(netip.MustParseAddr(peer)); got != want {
			t.Errorf("%s: got %v, want %v", peer, got, want)
		}
	}
}

// TestTags wants news of a session that is over to find nobody, also when its place was taken.
func TestTags(t *testing.T) {
	w := newWorker(&Relay{})
	first := w.fresh()
	first.state = relaying
	old := first.tag(backend)
	if w.find(old) != first || w.find(first.tag(client)) != first {
		t.Fatal("a session is not found")
	}
	first.tried = append(first.tried, netip.AddrPort{})
	if w.find(old) != nil || w.find(first.tag(backend)) != first || w.find(first.tag(client)) != first {
		t.Error("news of a backend is taken for news of the next one")
	}
	old = first.tag(backend)
	w.recycle(first)
	if w.find(old) != nil {
		t.Error("a session is found after its end")
	}
	second := w.fresh()
	second.state = relaying
	if second.index != first.index || w.find(old) != nil || w.find(second.tag(client)) != second {
		t.Error("a session is taken for the one that had its place")
	}
	second.gen = ^uint32(0)
	w.recycle(second)
	if w.fresh().gen == 0 {
		t.Error("a session has the generation of listeners")
	}
}

func TestSourceOf(t *testing.T) {
	for in, want := range map[string]string{
		"192.0.2.1": "192.0.2.1", "2001:db8:1:2:3::4": "2001:db8:1:2::", "fe80::1%3": "fe80::",
	} {
		if got := sourceOf(netip.MustParseAddr(in)); got.String() != want {
			t.Errorf("%s: got %v, want %s", in, got, want)
		}
	}
}

// TestFullness has a flow become bulk and stop being so.
func TestFullness(t *testing.T) {
	var e end
	feed := func(n, times int) bool {
		for range times {
			e.fullness(n)
		}
		return e.full >= fullBeforeSplice
	}
	for i, step := range []struct {
		n, times int
		want     bool
	}{
		{fullSize, fullBeforeSplice - 1, false}, {smallSize, 1, false}, {fullSize, fullBeforeSplice - 1, false},
		{fullSize, 1, true}, {fullSize, 2 * maxFull, true}, {smallSize, maxFull, true}, {1, maxFull - fullBeforeSplice, true},
		{1, 1, false},
	} {
		if got := feed(step.n, step.times); got != step.want {
			t.Errorf("step %d: bulk %v, want %v", i, got, step.want)
		}
	}
}

// TestSessionIsSmall keeps an idle session from growing unseen: 20,000 of them are to be a few MiB.
func TestSessionIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(session{}); size > 1024 {
		t.Errorf("a session has %d bytes", size)
	}
}

// TestReadsLittleWhenMuchIsHeld wants one blocked write more to take a small buffer, and what was taken to be given back.
func TestReadsLittleWhenMuchIsHeld(t *testing.T) {
	fds, err := syscall.Socketpair(syscall.AF_UNIX, syscall.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer syscall.Close(fds[0])
	defer syscall.Close(fds[1])
	w := newWorker(&Relay{})
	s := w.fresh()
	s.state, s.count = relaying, &backendCount{}
	for _, c := range [][2]int{{0, 10 << 10}, {maxHeld + 1, chunkSizes[0]}} {
		held, want := c[0], c[1]
		if _, err := syscall.Write(fds[1], make([]byte, 10<<10)); err != nil {
			t.Fatal(err)
		}
		w.chunks.held = held
		from, to := &s.ends[client], &s.ends[backend]
		*from, *to = end{fd: fds[0], readable: true}, end{fd: -1}
		if broken := w.pump(s, from, to); broken != nil || len(from.rest) != want {
			t.Errorf("with %d bytes held: %d more are kept, want %d", held, len(from.rest), want)
		}
		w.release(from)
		if w.chunks.held != held {
			t.Errorf("%d bytes are held in the end, want %d", w.chunks.held, held)
		}
	}
}

func TestChunks(t *testing.T) {
	var c chunks
	for _, n := range []int{1, 2 << 10, 2<<10 + 1, 16 << 10, bufferSize} {
		b := c.take(n)
		if len(b) < n {
			t.Errorf("got %d bytes for %d", len(b), n)
		}
		c.give(b)
		if again := c.take(n); &again[0] != &b[0] {
			t.Errorf("the buffer for %d bytes was not kept", n)
		}
	}
}
