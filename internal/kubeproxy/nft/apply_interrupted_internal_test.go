package nft

import (
	"encoding/binary"
	"testing"

	"golang.org/x/sys/unix"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// busy is a wire on which one of the dumps is said to be interrupted, as when another program changes its own tables.
type busy struct {
	wire
	dump int // counts down to 0 at the one
}

func (b *busy) receive(wait bool) ([]byte, error) {
	datagram, err := b.wire.receive(wait)
	for m := range messages(datagram) {
		if m.kind == unix.NLMSG_DONE {
			if b.dump--; b.dump == 0 {
				at := len(datagram) - len(m.body) - unix.NLMSG_HDRLEN // it is the last message
				binary.NativeEndian.PutUint16(datagram[at+6:], m.flags|unix.NLM_F_DUMP_INTR)
			}
		}
	}
	return datagram, err
}

// TestInterruptedDumpsAreRepeated interrupts each dump of a reading. The tables must not be taken for damaged: that would
// replace them, with all that they remember and have counted.
func TestInterruptedDumpsAreRepeated(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	defer ns.Close()
	k := NewNetlink(Config{Families: []service.Family{service.IPv4}, MasqueradeMark: 1, NetNS: ns.FD()})
	defer k.Close()
	if err := k.Commit(t.Context(), Transaction{Replace: true, Generation: 7}); err != nil {
		t.Fatal(err)
	}
	usual := k.wire
	for dump := 1; ; dump++ {
		w := &busy{usual, dump}
		k.wire = w
		c, err := k.Read(t.Context())
		if err != nil || !c.Sound || c.Generation != 7 {
			t.Errorf("dump %d: sound %t, generation %d, error %v", dump, c.Sound, c.Generation, err)
		}
		if w.dump > 0 { // there are no more
			if dump < int(Generations) {
				t.Errorf("%d dumps, which is less than there are sets", dump-1)
			}
			return
		}
	}
}
