package kubeproxy_test

import (
	"context"
	"net/netip"
	"sync/atomic"
	"testing"

	"github.com/google/nftables"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// TestRestartLosesNoPacket replaces the whole state again and again, as a restarted proxy does that knows nothing of what
// the kernel holds, while a client opens connections.
func TestRestartLosesNoPacket(t *testing.T) {
	s := newStage(t)
	pods := []netip.Prefix{nettest.PodNet.V4, nettest.PodNet.V6}
	s.serve("services.txtar", nft.Config{ClusterCIDRs: pods})

	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var asked, failed atomic.Int64
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		row := nettest.Row{From: "client", To: netip.MustParseAddrPort("10.240.0.11:30081"), Protocol: "tcp",
			Want: nettest.Verdict{Backends: []string{"pod-1a"}, Source: "node-1"}}
		for ctx.Err() == nil {
			v, err := s.hosts.Send(t.Context(), row)
			asked.Add(1)
			if err != nil || len(v.Backends) != 1 {
				failed.Add(1)
				t.Logf("got %+v, %v", v, err)
			}
		}
	}()
	for range 40 {
		s.serve("services.txtar", nft.Config{ClusterCIDRs: pods})
	}
	cancel()
	<-ended
	if asked.Load() == 0 || failed.Load() > 0 {
		t.Errorf("%d of %d rounds failed", failed.Load(), asked.Load())
	}
}

// TestRestartRepairs deletes elements and rules behind the proxy's back.
func TestRestartRepairs(t *testing.T) {
	s := newStage(t)
	s.serve("services.txtar", nft.Config{})
	want := rows("node-1", [2]string{"10.96.0.21:80", "[fd00:96::21]:80"}, nettest.Verdict{Backends: []string{"pod-1a"}, Source: "node-1"})
	conn, err := nftables.New(nftables.WithNetNSFd(s.hosts.Namespaces["node-1"].FD()))
	if err != nil {
		t.Fatal(err)
	}
	for name, damage := range map[string]func(v4, v6 *nftables.Table){
		"a table deleted": func(v4, _ *nftables.Table) { conn.DelTable(v4) },
		"rules flushed":   func(v4, v6 *nftables.Table) { conn.FlushTable(v4); conn.FlushTable(v6) },
		"elements flushed": func(v4, v6 *nftables.Table) {
			for _, table := range []*nftables.Table{v4, v6} {
				conn.FlushSet(&nftables.Set{Table: table, Name: nft.Endpoints.String()})
			}
		},
	} {
		t.Run(name, func(t *testing.T) {
			damage(&nftables.Table{Name: nft.TableName, Family: nftables.TableFamilyIPv4},
				&nftables.Table{Name: nft.TableName, Family: nftables.TableFamilyIPv6})
			if err := conn.Flush(); err != nil {
				t.Fatal(err)
			}
			row := want[0]
			row.Want = nettest.Verdict{} // nobody answers at a ClusterIP that is not translated
			if v, err := s.hosts.Send(t.Context(), row); err == nil && len(v.Backends) > 0 {
				t.Fatalf("the damage does no harm: got %+v", v)
			}
			s.serve("services.txtar", nft.Config{})
			nettest.RunTable(t, s.hosts, want)
		})
	}
}

// TestUpdateAfterLossIsRepairedByReplace is what the loop does: an update that the kernel refuses, then the whole state.
func TestUpdateAfterLossIsRepairedByReplace(t *testing.T) {
	s := newStage(t)
	plane := s.plane("node-1", nft.Config{})
	table := service.NewTable("node-1")
	s.must(plane.Replace(t.Context(), table.Changes()))
	conn, err := nftables.New(nftables.WithNetNSFd(s.hosts.Namespaces["node-1"].FD()))
	s.must(err)
	conn.DelTable(&nftables.Table{Name: nft.TableName, Family: nftables.TableFamilyIPv4})
	s.must(conn.Flush())

	set(table, s.objects("services.txtar"))
	if err := plane.Update(t.Context(), table.Changes()); err == nil {
		t.Fatal("an update of a table that is gone succeeded")
	}
	s.must(plane.Replace(t.Context(), table.All()))
	nettest.RunTable(t, s.hosts, rows("node-1", [2]string{"10.96.0.21:80", "[fd00:96::21]:80"},
		nettest.Verdict{Backends: []string{"pod-1a"}, Source: "node-1"}))
}
