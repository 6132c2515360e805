package kubeproxy_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"hash/crc32"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/kubeproxy/nft/nfttest"
	"varco.dev/internal/service"
)

var update = flag.Bool("update", false, "rewrite the expected parts of testdata/*.txtar")

// TestGolden derives, for a node named node-1, what the API objects of each testdata/*.txtar ask for. The sections are
//
//	objects.yaml  the objects, as kubectl would write them
//	problems      what was left out, and why
//	ports         the desired state
//	elements      what the kernel holds; of very many slots the sums
//
// To add a case, write a file with objects.yaml, run the test with -update and read what it has written.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatal("no cases in testdata", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			golden(t, file)
		})
	}
}

func golden(t *testing.T, file string) {
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	archive := txtar.Parse(text)
	table := service.NewTable("node-1")
	problems := set(table, decode(t, archive.Files[0].Data))
	changes := table.Changes()
	kernel := &nfttest.Kernel{}
	if err := nft.New(kernel).Replace(context.Background(), changes); err != nil {
		t.Fatal(err)
	}
	got := &txtar.Archive{Comment: archive.Comment, Files: []txtar.File{
		archive.Files[0],
		{Name: "problems", Data: []byte(strings.Join(append(problems, ""), "\n"))},
		{Name: "ports", Data: describe(changes)},
		{Name: "elements", Data: abridge(kernel.Dump())},
	}}
	if *update {
		if err := os.WriteFile(file, txtar.Format(got), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if diff := cmp.Diff(string(text), string(txtar.Format(got))); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// manySlots is how many slots a set of backends may have to be written one by one. Maglev's have far more.
const manySlots = 1000

// abridge writes of a set with very many slots how many each backend has, and a checksum of them all.
func abridge(dump string) []byte {
	sets := map[string][]string{} // "ip endpoints ID" -> "SLOT : BACKEND" of each slot
	for line := range strings.Lines(dump) {
		if set, slot, ok := cutSlot(line); ok {
			sets[set] = append(sets[set], slot)
		}
	}
	var b bytes.Buffer
	for line := range strings.Lines(dump) {
		set, _, ok := cutSlot(line)
		if !ok || len(sets[set]) <= manySlots {
			b.WriteString(line)
			continue
		}
		if strings.HasPrefix(line, set+" . "+sets[set][0]) {
			sumSlots(&b, set, sets[set])
		}
	}
	return b.Bytes()
}

// cutSlot cuts the line of a slot behind the id of its set.
func cutSlot(line string) (set, slot string, ok bool) {
	if !strings.Contains(line, " endpoints ") && !strings.Contains(line, " tokens ") {
		return "", "", false
	}
	return strings.Cut(line, " . ")
}

func sumSlots(b *bytes.Buffer, set string, slots []string) {
	shares, sum := map[string]int{}, crc32.NewIEEE()
	for _, slot := range slots {
		_, backend, _ := strings.Cut(slot, " : ")
		shares[backend]++
		fmt.Fprint(sum, slot)
	}
	for _, backend := range slices.Sorted(maps.Keys(shares)) {
		fmt.Fprintf(b, "%s . %d slots : %s", set, shares[backend], backend)
	}
	fmt.Fprintf(b, "%s . %d slots with the checksum %08x\n", set, len(slots), sum.Sum32())
}

// describe writes the desired state for people: what is as usual is left out.
func describe(c service.Changes) []byte {
	var b bytes.Buffer
	for _, change := range c.Ports {
		describePort(&b, change.New)
	}
	for _, change := range c.Health {
		h := change.New
		fmt.Fprintf(&b, "health check of %s at %d: %d of IPv4 and %d of IPv6 ready here", h.Service, h.Port, h.Local[0], h.Local[1])
		fmt.Fprintln(&b, families(h.Families))
	}
	for _, n := range c.CIDRs {
		fmt.Fprintf(&b, "ClusterIPs are of %s\n", n)
	}
	return b.Bytes()
}

func families(f [2]bool) string {
	switch f {
	case [2]bool{true, false}:
		return ", asked for IPv4 only"
	case [2]bool{false, true}:
		return ", asked for IPv6 only"
	}
	return ""
}

func describePort(b *bytes.Buffer, p *service.Port) {
	fmt.Fprintln(b, p.Key)
	for _, f := range p.Frontends {
		fmt.Fprintf(b, "  at %s %s\n", f.Kind, f.Addr)
	}
	for _, l := range p.Lost {
		fmt.Fprintf(b, "  not at %s %s: has %s\n", l.Frontend.Kind, l.Frontend.Addr, l.Winner)
	}
	if p.Internal != service.PolicyCluster {
		fmt.Fprintf(b, "  internal policy %s\n", p.Internal)
	}
	if p.External != service.PolicyCluster {
		fmt.Fprintf(b, "  external policy %s\n", p.External)
	}
	describeBackends(b, "to", p.Cluster)
	describeBackends(b, "by policy Local to", p.Local)
	if !slices.Equal(p.Serving, p.Cluster) {
		describeBackends(b, "serving", p.Serving)
	}
	if p.HasEndpoints != (len(p.Cluster)+len(p.Local) > 0) {
		fmt.Fprintf(b, "  has endpoints: %t\n", p.HasEndpoints)
	}
	if p.Affinity != 0 || p.Balance != service.Random {
		fmt.Fprintf(b, "  affinity %s, balance %s\n", p.Affinity, p.Balance)
	}
	for _, n := range p.Sources {
		fmt.Fprintf(b, "  from %s\n", n)
	}
}

func describeBackends(b *bytes.Buffer, how string, bs []service.Backend) {
	for _, e := range bs {
		fmt.Fprintf(b, "  %s %s%s", how, e.Addr, map[bool]string{true: " local"}[e.Local])
		if e.Weight != 1 {
			fmt.Fprintf(b, " weight %d", e.Weight)
		}
		fmt.Fprintln(b)
	}
}
