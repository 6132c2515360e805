package nft_test

import (
	"strings"
	"testing"
	"time"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/service"
)

// TestUnusedClassesGo has a Service whose number of backends changes many times. The chains of numbers that were left
// behind are kept until they are many; then they go, in two steps. One that is wanted again meanwhile works.
func TestUnusedClassesGo(t *testing.T) {
	t.Parallel()
	n := newNode(t, nft.Config{Detector: podNets()})
	with := func(slots int) *service.Port {
		return sample(service.IPv4, service.TCP, 1, func(p *service.Port) {
			p.Balance = service.HashSourceIP
			p.Cluster = pods(slots)
			for i := range p.Cluster { // whoever is chosen, it is there
				p.Cluster[i] = backend(service.IPv4, i%2)
			}
		})
	}
	before := with(1)
	n.serve(nodeAddrs(), before)
	change := func(slots int) {
		t.Helper()
		after := with(slots)
		n.update(before, after)
		before = after
	}
	for slots := 2; slots < 30; slots++ { // three classes each
		change(slots)
	}
	chains := func() int { return strings.Count(n.nft("", "list", "chains", "ip"), "hash-source-ip") }
	if got := chains(); got > 0 && got < 60 {
		t.Errorf("%d chains while numbers are in use again and again", got)
	}
	change(3) // whose chains were retired, but are there
	if got := n.ask("client", "tcp", atPort(at(service.IPv4, "96", 1), 80)); !strings.HasPrefix(got, "pod-") {
		t.Errorf("served by %s", got)
	}
	time.Sleep(2100 * time.Millisecond) // until retired chains may go
	change(2)
	if got := chains(); got > 70 {
		t.Errorf("%d chains are left", got)
	}
	if got := n.ask("client", "tcp", atPort(at(service.IPv4, "96", 1), 80)); !strings.HasPrefix(got, "pod-") {
		t.Errorf("served by %s", got)
	}
}
