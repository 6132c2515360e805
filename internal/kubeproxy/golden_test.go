package kubeproxy_test

import (
	"bytes"
	"context"
	"flag"
	"fmt"
	"os"
	"path/filepath"
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
//	elements      what the kernel holds
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
		{Name: "elements", Data: []byte(kernel.Dump())},
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

// describe writes the desired state for people.
func describe(c service.Changes) []byte {
	var b bytes.Buffer
	for _, change := range c.Ports {
		p := change.New
		fmt.Fprintln(&b, p.Key)
		for _, f := range p.Frontends {
			fmt.Fprintf(&b, "  at %s %s\n", f.Kind, f.Addr)
		}
		for _, l := range p.Lost {
			fmt.Fprintf(&b, "  not at %s %s: has %s\n", l.Frontend.Kind, l.Frontend.Addr, l.Winner)
		}
		for _, e := range p.Backends {
			fmt.Fprintf(&b, "  to %s%s\n", e.Addr, map[bool]string{true: " local"}[e.Local])
		}
	}
	return b.Bytes()
}
