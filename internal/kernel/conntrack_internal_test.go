package kernel

import (
	"errors"
	"fmt"
	"net/netip"
	"testing"

	"github.com/mdlayher/netlink"
	"github.com/mdlayher/netlink/nltest"
	"golang.org/x/sys/unix"
	"varco.dev/internal/service"
)

// fakeConntrack answers requests, and remembers what was deleted.
type fakeConntrack struct {
	dumps   []func(netlink.Message) ([]netlink.Message, error) // one for each walk
	refuse  int                                                // error number for deletions
	deleted [][]byte
}

func (k *fakeConntrack) dial() (*netlink.Conn, error) { return nltest.Dial(k.answer), nil }

func (k *fakeConntrack) answer(requests []netlink.Message) ([]netlink.Message, error) {
	if len(requests) == 0 { // the end of a dump, which has no more
		return nil, nil
	}
	if requests[0].Header.Type&0xff == ctDelete {
		var answers []netlink.Message
		for _, r := range requests {
			k.deleted = append(k.deleted, r.Data)
			answer, _ := nltest.Error(k.refuse, []netlink.Message{r})
			answers = append(answers, answer...)
		}
		return answers, nil
	}
	if len(k.dumps) == 0 {
		return nil, fmt.Errorf("walks again")
	}
	next := k.dumps[0]
	k.dumps = k.dumps[1:]
	return next(requests[0])
}

// flowMessage is how the kernel tells of a UDP flow to a port.
func flowMessage(port byte) netlink.Message {
	tuple := func(source, dest byte, sourcePort, destPort byte) []byte {
		ip := appendAttribute(nil, ctaIPv4Source, []byte{192, 0, 2, source})
		ip = appendAttribute(ip, ctaIPv4Dest, []byte{192, 0, 2, dest})
		proto := appendAttribute(nil, ctaProtoNumber, []byte{unix.IPPROTO_UDP})
		proto = appendAttribute(proto, ctaProtoSource, []byte{0, sourcePort})
		proto = appendAttribute(proto, ctaProtoDest, []byte{0, destPort})
		return appendAttribute(appendAttribute(nil, ctaTupleIP, ip), ctaTupleProto, proto)
	}
	b := appendAttribute(nil, ctaTupleOriginal, tuple(1, 2, 40, port))
	b = appendAttribute(b, ctaTupleReply, tuple(2, 1, port, 40))
	return netlink.Message{Data: append(make([]byte, nfHeader), b...)}
}

func dumpOf(flags netlink.HeaderFlags, ports ...byte) func(netlink.Message) ([]netlink.Message, error) {
	return func(request netlink.Message) (out []netlink.Message, err error) {
		for _, p := range ports {
			m := flowMessage(p)
			m.Header.Flags = netlink.Multi | flags
			m.Header.Sequence, m.Header.PID = request.Header.Sequence, request.Header.PID
			out = append(out, m)
		}
		return append(out, netlink.Message{Header: netlink.Header{Type: netlink.Done, Flags: netlink.Multi}}), nil
	}
}

func dumpError(errno unix.Errno) func(netlink.Message) ([]netlink.Message, error) {
	return func(request netlink.Message) ([]netlink.Message, error) {
		request.Header.Flags = 0 // those of an answer mean something else
		return nltest.Error(int(errno), []netlink.Message{request})
	}
}

func TestConntrackInterrupted(t *testing.T) {
	type dumps = []func(netlink.Message) ([]netlink.Message, error)
	interrupted := dumpOf(netlink.DumpInterrupted, 1)
	for _, test := range []struct {
		name  string
		dumps dumps
		seen  int
		want  error
	}{
		{"whole", dumps{dumpOf(0, 1, 2)}, 2, nil},
		{"interrupted once", dumps{interrupted, dumpOf(0, 1, 2)}, 3, nil},
		{"overrun once", dumps{dumpError(unix.ENOBUFS), dumpOf(0, 1, 2)}, 2, nil},
		{"interrupted system call", dumps{dumpError(unix.EINTR), dumpOf(0, 1)}, 1, nil},
		{"interrupted always", dumps{interrupted, interrupted, interrupted, interrupted, interrupted}, 5, unix.EINTR},
		{"not supported", dumps{dumpError(unix.EINVAL)}, 0, errors.ErrUnsupported},
		{"not allowed", dumps{dumpError(unix.EPERM)}, 0, unix.EPERM},
	} {
		t.Run(test.name, func(t *testing.T) {
			fake := &fakeConntrack{dumps: test.dumps}
			ct := &Conntrack{dial: fake.dial}
			seen := 0
			err := ct.Walk(t.Context(), []service.Family{service.IPv4}, nil, func(Flow) error { seen++; return nil })
			if seen != test.seen || !errors.Is(err, test.want) {
				t.Errorf("visited %d, %v; want %d, %v", seen, err, test.seen, test.want)
			}
			if len(fake.dumps) > 0 {
				t.Errorf("%d walks were not made", len(fake.dumps))
			}
		})
	}
}

// TestConntrackUnfiltered has a kernel that does not leave out other protocols.
func TestConntrackUnfiltered(t *testing.T) {
	for protocol, want := range map[service.Protocol]int{service.UDP: 2, service.TCP: 0} {
		fake := &fakeConntrack{dumps: []func(netlink.Message) ([]netlink.Message, error){dumpOf(0, 1, 2)}}
		ct := &Conntrack{dial: fake.dial}
		seen := 0
		err := ct.Walk(t.Context(), []service.Family{service.IPv4}, []service.Protocol{protocol}, func(Flow) error { seen++; return nil })
		if seen != want || err != nil {
			t.Errorf("visited %d flows of %s, %v; want %d", seen, protocol, err, want)
		}
	}
}

func TestConntrackRefused(t *testing.T) {
	fake := &fakeConntrack{refuse: int(unix.EBUSY), dumps: []func(netlink.Message) ([]netlink.Message, error){dumpOf(0, 1, 2, 3)}}
	ct := &Conntrack{dial: fake.dial}
	n, err := ct.Delete(t.Context(), []service.Family{service.IPv4}, nil, func(f Flow) bool { return f.Dest.Port() == 2 })
	if n != 0 || !errors.Is(err, unix.EBUSY) || len(fake.deleted) != 1 {
		t.Errorf("deleted %d of %d, %v; want 0 of 1 and EBUSY", n, len(fake.deleted), err)
	}
}

// FuzzConntrackParse looks for input that stops the parser, and for flows that could not be named in a deletion.
func FuzzConntrackParse(f *testing.F) {
	f.Add(body(flowMessage(53).Data))
	f.Add([]byte{3, 0, 1, 0})
	f.Fuzz(func(t *testing.T, b []byte) {
		e, ok := parse(b)
		if !ok {
			return
		}
		again, ok := parse(append(e.name(), appendAttribute(nil, ctaTupleReply, nestedReply(e.flow))...))
		if !ok || again.flow.Source != e.flow.Source || again.flow.Dest != e.flow.Dest {
			t.Errorf("%v is named %v", e.flow, again.flow)
		}
	})
}

// nestedReply is a tuple of the answers to a flow.
func nestedReply(f Flow) []byte {
	ip := appendAttribute(nil, ctaIPv6Source, f.ReplySource.Addr().AsSlice())
	ip = appendAttribute(ip, ctaIPv6Dest, netip.IPv6Loopback().AsSlice())
	proto := appendAttribute(nil, ctaProtoNumber, []byte{byte(f.Protocol)})
	return appendAttribute(appendAttribute(nil, ctaTupleIP, ip), ctaTupleProto, proto)
}
