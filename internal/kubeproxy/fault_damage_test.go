package kubeproxy_test

import (
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/nettest"
)

// repairTime is in what another program's damage must be undone.
const repairTime = time.Second

// vandal is another program that changes tables, as far as the kernel can tell.
type vandal struct {
	*nftables.Conn
	t      *testing.T
	tables []*nftables.Table // of both families
}

func newVandal(s *sole) *vandal {
	s.t.Helper()
	roomy := func(c *netlink.Conn) error { return errors.Join(c.SetWriteBuffer(64<<20), c.SetReadBuffer(64<<20)) }
	conn, err := nftables.New(nftables.WithNetNSFd(s.ns.FD()), nftables.WithSockOptions(roomy))
	s.must(err)
	v := &vandal{Conn: conn, t: s.t}
	for _, f := range []nftables.TableFamily{nftables.TableFamilyIPv4, nftables.TableFamilyIPv6} {
		v.tables = append(v.tables, &nftables.Table{Name: nft.TableName, Family: f})
	}
	return v
}

// act does something to each table.
func (v *vandal) act(fn func(*nftables.Table)) {
	v.t.Helper()
	for _, t := range v.tables {
		fn(t)
	}
	if err := v.Flush(); err != nil {
		v.t.Fatal(err)
	}
}

// element returns an element of a set of IPv4 that is there.
func (v *vandal) element(set nft.Set) (*nftables.Set, nftables.SetElement) {
	v.t.Helper()
	s, err := v.GetSetByName(v.tables[0], set.String())
	if err != nil {
		v.t.Fatal(err)
	}
	all, err := v.GetSetElements(s)
	if err != nil || len(all) == 0 {
		v.t.Fatalf("%d elements in %s, error %v", len(all), set, err)
	}
	return s, all[0]
}

// damages are what others do to the tables. Each makes the Service at 10.96.0.1 fail, but for those that are told.
var damages = []struct {
	name     string
	harmless bool   // to packets
	said     string // in the log
	do       func(v *vandal)
}{
	{"table deleted", false, "varco-kube-proxy", func(v *vandal) { v.act(v.DelTable) }},
	{"ruleset flushed", false, "varco-kube-proxy", func(v *vandal) { v.act(func(*nftables.Table) { v.FlushRuleset() }) }},
	{"element deleted", false, "elements of set ip varco-kube-proxy services deleted", func(v *vandal) {
		set, e := v.element(nft.Services)
		v.act(func(t *nftables.Table) {
			if t == v.tables[0] {
				v.must(v.SetDeleteElements(set, []nftables.SetElement{{Key: e.Key}}))
			}
		})
	}},
	{"chain flushed", false, "rule of chain", func(v *vandal) {
		v.act(func(t *nftables.Table) { v.FlushChain(&nftables.Chain{Table: t, Name: "nat-output"}) })
	}},
	{"element added", true, "elements of set ip varco-kube-proxy cluster-ips added", func(v *vandal) {
		set, _ := v.element(nft.ClusterIPs)
		v.act(func(t *nftables.Table) {
			if t == v.tables[0] {
				v.must(v.SetAddElements(set, []nftables.SetElement{{Key: []byte{192, 0, 2, 1}}}))
			}
		})
	}},
	{"chain added", true, "chain of ip", func(v *vandal) {
		v.act(func(t *nftables.Table) { v.AddChain(&nftables.Chain{Table: t, Name: "mine"}) })
	}},
}

func (v *vandal) must(err error) {
	if err != nil {
		v.t.Fatal(err)
	}
}

// TestDamageIsRepaired has another program change the tables in many ways while a proxy runs. Each is repaired before a
// user takes notice, and the log says what was done and by whom.
func TestDamageIsRepaired(t *testing.T) {
	s := newSole(t, false)
	s.api.set(serviceAt("one", "10.96.0.1"), sliceOf("one", portOfA, soleAddr4))
	for _, d := range damages {
		t.Run(d.name, func(t *testing.T) {
			s := s.in(t)
			r := s.run()
			defer r.stop()
			s.watched(r.log)
			if who, err := s.ask("10.96.0.1"); err != nil || who != "a" {
				t.Fatalf("before the damage: %s, %v", who, err)
			}
			d.do(newVandal(s))
			began := time.Now()
			if _, err := s.quickly("10.96.0.1"); err == nil && !d.harmless && r.log.repairs() == 0 {
				t.Error("the damage does no harm")
			}
			eventually(t, repairTime, func() string {
				if who, err := s.quickly("10.96.0.1"); err != nil || who != "a" {
					return fmt.Sprintf("%q answers, error %v", who, err)
				}
				return ""
			})
			s.expect(repairTime - time.Since(began))
			line := r.log.await(t, "another program has changed the tables")
			if !strings.Contains(line, d.said) || !strings.Contains(line, "process ") {
				t.Errorf("logged %s", line)
			}
			r.proxyIsWell(t, d.said)
		})
	}
}

// watched returns once the proxy sees what others do: it is made to see something that does not matter.
func (s *sole) watched(log *logBook) {
	s.t.Helper()
	v := newVandal(s)
	set, _ := v.element(nft.ClusterIPs)
	element := []nftables.SetElement{{Key: []byte{192, 0, 2, 99}}}
	eventually(s.t, 10*time.Second, func() string {
		s.must(errors.Join(v.SetAddElements(set, element), v.Flush()))
		if log.repairs() == 0 {
			return "nobody watches"
		}
		return ""
	})
	s.expect(10 * time.Second)
	log.reset()
}

// repairs is how often the log told of another program.
func (l *logBook) repairs() int {
	text, _ := l.all()
	return strings.Count(text, "another program has changed the tables")
}

// quickly is ask for a moment in which nobody may answer.
func (s *sole) quickly(ip string) (string, error) {
	c := nettest.Client{Host: s.ns, Protocol: "tcp", Patience: 50 * time.Millisecond}
	a, err := c.Ask(s.t.Context(), addrPort(ip))
	return a.Server, err
}

// proxyIsWell fails if the status says that something is wrong, or that a port waits; but it must tell of what another
// program did, with these words, if there are any.
func (r *running) proxyIsWell(t *testing.T, did string) {
	t.Helper()
	eventually(t, 10*time.Second, func() string {
		status, err := r.proxy.Status(t.Context())
		told := len(status.Problems) == 1 && strings.HasPrefix(status.Problems[0], "another program has changed the tables of Services") &&
			strings.Contains(status.Problems[0], did)
		if err != nil || status.Error != "" || len(status.Problems) > 0 != (did != "") || did != "" && !told || status.PendingSince != nil || !status.Ready {
			return fmt.Sprintf("status %+v, error %v", status, err)
		}
		for _, p := range status.Ports {
			if p.State != "done" || p.Error != "" {
				return fmt.Sprintf("port %+v", p)
			}
		}
		return ""
	})
}

// TestFloodOfOtherChanges has another program change so much of its own that the kernel cannot keep all of it for a proxy
// that gets no time to read: then the proxy looks at everything, finds nothing to do, and goes on watching.
func TestFloodOfOtherChanges(t *testing.T) {
	s, log := newSole(t, true), newLogBook()
	s.api.set(serviceAt("one", "10.96.0.1"), sliceOf("one", portOfA, soleAddr4))
	proxy := s.child(log)
	defer s.kill(proxy)
	s.expect(30 * time.Second)
	s.watched(log)
	s.must(proxy.Process.Signal(unix.SIGSTOP))
	_, err := unix.Wait4(proxy.Process.Pid, nil, unix.WUNTRACED, nil) // until it has stopped
	s.must(err)

	v := newVandal(s)
	theirs := v.AddTable(&nftables.Table{Name: "theirs", Family: nftables.TableFamilyIPv4})
	set := &nftables.Set{Table: theirs, Name: "many", KeyType: nftables.TypeIPAddr}
	s.must(v.AddSet(set, nil))
	const all, message = 200_000, 500
	for i := 0; i < all; i += message {
		var elements []nftables.SetElement
		for j := range message {
			n := i + j
			elements = append(elements, nftables.SetElement{Key: []byte{10, byte(n >> 16), byte(n >> 8), byte(n)}})
		}
		s.must(v.SetAddElements(set, elements))
	}
	s.must(v.Flush())
	generation := s.generation()
	s.must(proxy.Process.Signal(unix.SIGCONT))
	line := log.await(t, "another program has changed the tables")
	if !strings.Contains(line, "more changes than could be kept") {
		t.Errorf("logged %s", line)
	}
	log.await(t, "applied all Services")
	if n := s.generation() - generation; n != 0 {
		t.Errorf("%d transactions, though nothing of ours has changed", n)
	}
	v.act(v.DelTable)
	s.expect(5 * time.Second)
}
