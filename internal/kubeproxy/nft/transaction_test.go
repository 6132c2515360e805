package nft_test

import (
	"context"
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/kubeproxy/nft/nfttest"
	"varco.dev/internal/service"
)

// variants are states that one Service port may be in.
func variants() map[string]*service.Port {
	f := service.IPv4
	three := []service.Backend{backend(f, 0), backend(f, 1), backend(f, 2)}
	heavy := slices.Clone(three)
	heavy[1].Weight = 3
	out := map[string]*service.Port{}
	add := func(name string, fn func(*service.Port)) {
		out[name] = sample(f, service.TCP, 1, fn)
	}
	add("three", func(p *service.Port) { p.Cluster = three })
	add("two", func(p *service.Port) { p.Cluster = three[1:] })
	add("none", func(p *service.Port) {})
	add("weights", func(p *service.Port) { p.Cluster = heavy })
	add("local", func(p *service.Port) { p.Cluster, p.Local, p.External = three, three[:2], service.PolicyLocal })
	add("elsewhere", func(p *service.Port) {
		p.Cluster, p.Internal, p.External = three[2:], service.PolicyLocal, service.PolicyLocal
	})
	add("affinity", func(p *service.Port) { p.Cluster, p.Affinity = three, time.Hour })
	add("longer affinity", func(p *service.Port) { p.Cluster, p.Affinity = three[:2], 2*time.Hour })
	add("hash", func(p *service.Port) { p.Cluster, p.Balance = three, service.HashSourceIP })
	add("maglev", func(p *service.Port) { p.Cluster, p.Balance = three, service.Maglev })
	add("maglev and affinity", func(p *service.Port) { p.Cluster, p.Balance, p.Affinity = three[1:], service.Maglev, time.Hour })
	add("sources", func(p *service.Port) {
		p.Cluster, p.Sources = three, []netip.Prefix{netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("fd00::/8")}
	})
	add("no frontend", func(p *service.Port) { p.Cluster, p.Frontends = three, nil })
	out["gone"] = nil
	return out
}

// TestEveryChange goes from each state of a Service port to each other, and compares what the kernel holds then with what
// it would hold from the beginning, but for what depends on history: which slot a backend has, and chains kept.
func TestEveryChange(t *testing.T) {
	all := variants()
	fresh := map[string][]string{}
	for name, p := range all {
		kernel := &nfttest.Kernel{}
		commit(t, nft.New(kernel).Replace, nil, p)
		fresh[name] = timeless(kernel)
	}
	for from, old := range all {
		for to, p := range all {
			// Of ways to and from so many slots, a few are enough.
			few := []string{"affinity, maglev", "maglev, maglev and affinity", "maglev and affinity, three"}
			if strings.Contains(from+to, "maglev") && !slices.Contains(few, from+", "+to) {
				continue
			}
			kernel := &nfttest.Kernel{}
			plane := nft.New(kernel)
			commit(t, plane.Replace, nil, old)
			commit(t, plane.Update, old, p)
			if diff := cmp.Diff(fresh[to], timeless(kernel)); diff != "" {
				t.Errorf("from %s to %s (-fresh +changed)\n%.2000s", from, to, diff)
			}
		}
	}
}

func commit(t *testing.T, do func(context.Context, service.Changes) error, old, new *service.Port) {
	t.Helper()
	var c service.Changes
	if old != nil || new != nil {
		c.Ports = []service.Change{{Old: old, New: new}}
	}
	if err := do(t.Context(), c); err != nil {
		t.Fatal(err)
	}
}

// timeless returns a dump without what depends on history. Of backends in slots, it has their numbers.
func timeless(k *nfttest.Kernel) []string {
	var out []string
	slots := map[string]int{}
	for line := range strings.Lines(k.Dump()) {
		line = strings.TrimSpace(line)
		fields := strings.Fields(line)
		switch {
		case fields[0] == "class":
		case fields[1] == "endpoints" || fields[1] == "tokens":
			place, value, _ := strings.Cut(line, " : ")
			id, _, _ := strings.Cut(place, " . ")
			slots[id+" to "+value]++
		default:
			out = append(out, line)
		}
	}
	for s, n := range slots {
		out = append(out, fmt.Sprintf("%s in %d slots", s, n))
	}
	slices.Sort(out)
	return out
}

// TestMaglevChangeIsSmall has one of a hundred backends go: the slots that it had are written anew, and few others.
func TestMaglevChangeIsSmall(t *testing.T) {
	kernel := &last{}
	plane := nft.New(kernel)
	with := func(backends []service.Backend) *service.Port {
		return sample(service.IPv4, service.TCP, 1, func(p *service.Port) { p.Cluster, p.Balance = backends, service.Maglev })
	}
	old, new := with(pods(100)), with(without(pods(100), 50))
	commit(t, plane.Replace, nil, old)
	commit(t, plane.Update, old, new)
	if n := len(kernel.tx.Add); n < nft.MaglevSlots/200 || n > nft.MaglevSlots*2/100 || len(kernel.tx.Delete) > n {
		t.Errorf("%d elements added, %d deleted", n, len(kernel.tx.Delete))
	}
}
