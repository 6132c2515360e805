package nft_test

import (
	"context"
	"strings"
	"testing"
	"time"

	"github.com/google/nftables"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// watching starts to watch and returns what is reported.
func watching(t *testing.T, k *nft.Netlink) <-chan string {
	t.Helper()
	reports := make(chan string, 1000)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error)
	go func() { ended <- k.Watch(ctx, func(reason string) { reports <- reason }) }()
	t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Watch returned %v at the end of its context", err)
		}
	})
	return reports
}

// watched is a data plane whose tables are watched, and another program.
type watched struct {
	*testing.T
	kernel  *nft.Netlink
	plane   *nft.Plane
	reports <-chan string
	other   *nftables.Conn
	a, b    *service.Port // a is there
}

func newWatched(t *testing.T) *watched {
	ns := namespace(t)
	w := &watched{T: t, kernel: netlinkKernel(t, config(ns)), a: port(service.IPv4, 1, 2), b: port(service.IPv4, 1, 3)}
	w.plane = nft.New(w.kernel)
	if err := w.plane.Replace(t.Context(), service.Changes{Ports: []service.Change{{New: w.a}}}); err != nil {
		t.Fatal(err)
	}
	w.listen(ns)
	return w
}

// listen starts to watch; from then on, the other program is of the namespace too.
func (w *watched) listen(ns *nettest.Namespace) {
	w.Helper()
	w.reports = watching(w.T, w.kernel)
	var err error
	if w.other, err = nftables.New(nftables.WithNetNSFd(ns.FD())); err != nil {
		w.Fatal(err)
	}
	for deadline := time.Now().Add(10 * time.Second); len(w.reports) == 0; {
		if time.Now().After(deadline) {
			w.Fatal("nothing is reported")
		}
		w.touch()
		time.Sleep(10 * time.Millisecond) // until Watch listens: what is changed before is not reported
	}
	w.drain()
}

// change has the other program do something.
func (w *watched) change(fill func(*nftables.Conn)) {
	w.Helper()
	fill(w.other)
	if err := w.other.Flush(); err != nil {
		w.Fatal(err)
	}
}

// touch has the other program add a chain to our table, and delete it.
func (w *watched) touch() {
	chain := &nftables.Chain{Table: ourTable(), Name: "mine"}
	w.change(func(c *nftables.Conn) { c.AddChain(chain) })
	w.change(func(c *nftables.Conn) { c.DelChain(chain) })
}

func ourTable() *nftables.Table {
	return &nftables.Table{Name: nft.TableName, Family: nftables.TableFamilyIPv4}
}

// update has the data plane change a Service, and back.
func (w *watched) update() {
	w.Helper()
	for range 2 {
		if err := w.plane.Update(w.Context(), service.Changes{Ports: []service.Change{{Old: w.a, New: w.b}}}); err != nil {
			w.Fatal(err)
		}
		w.a, w.b = w.b, w.a
	}
}

// drain returns what is reported until nothing more comes.
func (w *watched) drain() (all []string) {
	for {
		select {
		case r := <-w.reports:
			all = append(all, r)
		case <-time.After(300 * time.Millisecond): // three times the pause between reports
			return all
		}
	}
}

func TestWatchIsSilentAboutOwnChanges(t *testing.T) {
	w := newWatched(t)
	for range 50 {
		w.update()
	}
	if err := w.kernel.Close(); err != nil { // the next commit is through another socket
		t.Fatal(err)
	}
	for range 50 {
		w.update()
	}
	if r := w.drain(); len(r) > 0 {
		t.Errorf("reported %q", r)
	}
}

func TestWatchIsSilentAboutOtherTables(t *testing.T) {
	w := newWatched(t)
	for _, table := range []*nftables.Table{
		{Name: "someone-else", Family: nftables.TableFamilyIPv4}, {Name: nft.TableName, Family: nftables.TableFamilyINet},
	} {
		w.change(func(c *nftables.Conn) { c.AddTable(table) })
		w.change(func(c *nftables.Conn) { c.DelTable(table) })
	}
	if r := w.drain(); len(r) > 0 {
		t.Errorf("reported %q", r)
	}
}

// TestWatchIsSilentAboutPackets has packets fill and refresh the map of session affinity.
func TestWatchIsSilentAboutPackets(t *testing.T) {
	n := newNode(t, nft.Config{Detector: podNets()})
	n.serve(nodeAddrs(), sample(service.IPv4, service.TCP, 1, func(p *service.Port) {
		p.Cluster, p.Affinity = []service.Backend{backend(service.IPv4, 0), backend(service.IPv4, 1)}, time.Hour
	}))
	w := &watched{T: t, kernel: n.kernel}
	w.listen(n.hosts["node"])
	for range 10 {
		if got := n.ask("client", "tcp", atPort(at(service.IPv4, "96", 1), 80)); !strings.HasPrefix(got, "pod-") {
			t.Fatalf("got %q", got)
		}
	}
	if r := w.drain(); len(r) > 0 {
		t.Errorf("reported %q", r)
	}
	set, err := w.other.GetSetByName(ourTable(), "affinity")
	if err != nil {
		t.Fatal(err)
	}
	if clients, err := w.other.GetSetElements(set); err != nil || len(clients) != 1 {
		t.Errorf("%d clients are remembered, error %v", len(clients), err)
	}
}

func TestWatchReportsOthers(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*nftables.Conn)
		want   string
	}{
		{"rules", func(c *nftables.Conn) { c.FlushChain(&nftables.Chain{Table: ourTable(), Name: "masquerading"}) },
			"rule of chain ip varco-kube-proxy masquerading deleted"},
		{"elements", func(c *nftables.Conn) { c.FlushSet(&nftables.Set{Table: ourTable(), Name: "endpoints"}) },
			"elements of set ip varco-kube-proxy endpoints deleted"},
		{"chains", func(c *nftables.Conn) { c.AddChain(&nftables.Chain{Table: ourTable(), Name: "mine"}) },
			"chain of ip varco-kube-proxy added"},
		{"all", func(c *nftables.Conn) { c.FlushRuleset() }, "ip varco-kube-proxy"},
	} {
		t.Run(c.name, func(t *testing.T) {
			w := newWatched(t)
			w.change(c.change)
			r := w.drain()
			if len(r) != 1 || !strings.Contains(r[0], c.want) || !strings.Contains(r[0], "process ") {
				t.Errorf("reported %q, want one report of %q and the process", r, c.want)
			}
		})
	}
}

// TestWatchGathers has another program make many changes at once.
func TestWatchGathers(t *testing.T) {
	w := newWatched(t)
	start := time.Now()
	for range 100 {
		w.touch()
	}
	took := time.Since(start)
	if n, most := len(w.drain()), 2+int(took/(100*time.Millisecond)); n == 0 || n > most {
		t.Errorf("%d reports of 200 changes in %s, want at most %d", n, took, most)
	}
}
