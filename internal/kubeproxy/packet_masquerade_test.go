package kubeproxy_test

import (
	"testing"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/nettest"
)

// TestMasquerade is who is masqueraded, and for whom policy Local has a short way, by how a node knows its pods.
func TestMasquerade(t *testing.T) {
	s := newStage(t)
	all := knowsPods()
	all.MasqueradeAll = true
	for _, c := range []struct {
		table  string
		config nft.Config
	}{
		{"masquerade all", all},
		{"no detector", nft.Config{}},
		{"one interface", nft.Config{Detector: nft.Detector{Bridge: "pod2"}}},
		{"interface prefix", nft.Config{Detector: nft.Detector{InterfacePrefix: "pod"}}},
	} {
		t.Run(c.table, func(t *testing.T) {
			s := s.in(t)
			s.serve("services.txtar", c.config)
			s.check("services.txtar", c.table)
		})
	}
}

// TestMarkIsCleared looks at the marks of packets that leave the node masqueraded: the bit that asked for it must be gone,
// and all others as they were, because routing and other tables may read them.
func TestMarkIsCleared(t *testing.T) {
	s := newStage(t)
	s.serve("services.txtar", nft.Config{})
	const other = 0x10
	seen := s.countMarks("node-1", other, other, other|masqueradeBit)
	nettest.RunTable(t, s.hosts, s.rows("client -> web/udp/v4 NodePort@node-1: pod-1a pod-1b pod-2a as node-1"))
	if clear, set := seen(); clear == 0 || set != 0 {
		t.Errorf("of the packets to backends %d left with the mark cleared, %d with it set", clear, set)
	}
}
