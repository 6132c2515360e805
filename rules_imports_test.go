package varco_test

import (
	"fmt"
	"path"
	"regexp"
	"slices"
	"strconv"
	"strings"
)

// theFive are the proxies that the Kubernetes documentation names.
var theFive = []string{"kubectlproxy", "apiserverproxy", "kubeproxy", "apiserverlb", "servicelb"}

// The floors of the product. A package imports packages of lower floors; shared parts may use each other.
const (
	floorService = iota
	floorShared
	floorFive
	floorCLI
	floorCmd
)

var floorNames = []string{"service", "a shared part", "one of the five", "cli", "cmd"}

// place returns the room and the floor of a folder of the product.
func place(dir string) (room string, floor int) {
	parts := strings.Split(dir, "/")
	switch {
	case parts[0] == "cmd":
		return parts[0], floorCmd
	case parts[0] != "internal" || len(parts) < 2:
		return dir, floorShared
	case parts[1] == "cli":
		return parts[1], floorCLI
	case parts[1] == "service":
		return parts[1], floorService
	case slices.Contains(theFive, parts[1]):
		return parts[1], floorFive
	}
	return parts[1], floorShared
}

func checkDirections(t *tree) (out []violation) {
	for _, f := range t.files {
		if !f.product() {
			continue
		}
		from, fromFloor := place(path.Dir(f.path))
		for _, spec := range f.Imports {
			p, _ := strconv.Unquote(spec.Path.Value)
			dir, ours := strings.CutPrefix(p, "varco.dev/")
			if !ours {
				continue
			}
			to, toFloor := place(dir)
			onWay := fromFloor > toFloor || from == to || fromFloor == floorShared && toFloor == floorShared
			forTests := f.test && to == "nettest"
			if !onWay && !forTests {
				out = append(out, t.at(spec.Pos(), "%s, %s, imports %s, %s", from, floorNames[fromFloor], to, floorNames[toFloor]))
			}
		}
	}
	return out
}

// door is a set of imports that only few files may have.
type door struct {
	imports []string // import paths; what is below them is meant too
	suffix  string   // or: what folders of this repository end in; what is below them is meant too
	keeper  string   // for the message
	open    func(*file) bool
}

var doors = []door{
	{
		imports: []string{"k8s.io/client-go/informers", "k8s.io/client-go/tools/cache"},
		keeper:  "internal/apiwatch",
		open:    func(f *file) bool { return !f.product() || f.test || f.in("internal/apiwatch") },
	},
	{
		imports: []string{
			"github.com/vishvananda/netlink", "github.com/vishvananda/netns", "github.com/mdlayher/netlink",
			"github.com/google/nftables", "github.com/cilium/ebpf", "golang.org/x/sys",
		},
		keeper: "internal/kernel and the apply*.go files of a data plane",
		open:   func(f *file) bool { return !f.product() || f.forTests() || touchesKernel(f) },
	},
	{
		imports: []string{"k8s.io"},
		keeper:  "what is left of render; service, kernel and the data planes know nothing of Kubernetes",
		open: func(f *file) bool {
			return f.test || !f.in("internal/service", "internal/kernel", "internal/kubeproxy/nft", "internal/kubeproxy/bpf")
		},
	},
	{
		suffix: "test",
		keeper: "tests and the lab",
		open:   func(f *file) bool { return !f.product() || f.forTests() },
	},
	{
		imports: []string{"k8s.io/kubernetes"},
		keeper:  "lab/internal/upstream",
		open:    func(f *file) bool { return f.in("lab/internal/upstream") },
	},
	{
		// They register metrics and flags for the whole process, and weigh more than all else that the binary has.
		imports: []string{
			"k8s.io/apiserver/pkg/server", "k8s.io/apiserver/pkg/admission", "k8s.io/apiserver/pkg/audit",
			"k8s.io/apiserver/pkg/endpoints/filters", "k8s.io/apiserver/pkg/endpoints/metrics",
		},
		keeper: "internal/apiserverproxy",
		open:   func(f *file) bool { return !f.product() || f.test || f.in("internal/apiserverproxy") },
	},
	{
		imports: []string{"varco.dev/lab"},
		keeper:  "the lab's module",
		open:    func(f *file) bool { return !f.product() },
	},
}

// forTests says whether only tests use the file: nettest, and fakes such as nfttest.
func (f *file) forTests() bool { return f.test || hasFolder(path.Dir(f.path), "test") }

// hasFolder says whether the last part of a path or one before it ends in suffix.
func hasFolder(p, suffix string) bool {
	return slices.ContainsFunc(strings.Split(p, "/"), func(part string) bool { return strings.HasSuffix(part, suffix) })
}

// touchesKernel says whether the file may speak to the kernel.
func touchesKernel(f *file) bool {
	applies := f.in("internal/kubeproxy/nft", "internal/kubeproxy/bpf") && strings.HasPrefix(path.Base(f.path), "apply")
	return applies || f.in("internal/kernel")
}

func checkDoors(t *tree) (out []violation) {
	for _, f := range t.files {
		for _, spec := range f.Imports {
			p, _ := strconv.Unquote(spec.Path.Value)
			for _, d := range doors {
				if d.matches(p) && !d.open(f) {
					out = append(out, t.at(spec.Pos(), "imports %s, which is for %s", p, d.keeper))
				}
			}
		}
	}
	return out
}

func (d door) matches(p string) bool {
	ours := d.suffix != "" && strings.HasPrefix(p, "varco.dev/") && hasFolder(p, d.suffix)
	return ours || slices.ContainsFunc(d.imports, func(root string) bool { return below(p, root) })
}

// below says whether the import path p is root or below it.
func below(p, root string) bool { return p == root || strings.HasPrefix(p, root+"/") }

// noLibrary are the first words of other lines of a go.mod, and the product itself.
var noLibrary = []string{"module", "go", "tool", "replace", "require", "varco.dev"}

// listed matches the libraries of a line of a table.
var listed = regexp.MustCompile("`([a-z0-9.-]+\\.[a-z]+/[^` ]+)`")

// checkDependencies wants a line for each library that a module names itself, and no other lines.
func checkDependencies(t *tree) (out []violation) {
	const doc = "docs/dependencies.md"
	required := map[string]bool{}
	for _, mod := range []string{"go.mod", "lab/go.mod", "bench/go.mod"} {
		for i, line := range strings.Split(t.texts[mod], "\n") {
			words := strings.Fields(strings.TrimPrefix(line, "require "))
			// A line of two words names a module and its version; an indirect one has a comment too.
			if len(words) != 2 || slices.Contains(noLibrary, words[0]) {
				continue
			}
			required[words[0]] = true
			if !strings.Contains(t.texts[doc], "`"+words[0]+"`") {
				out = append(out, violation{fmt.Sprintf("%s:%d", mod, i+1), "requires " + words[0] + " without a word"})
			}
		}
	}
	for i, line := range strings.Split(t.texts[doc], "\n") {
		if !strings.HasPrefix(line, "| ") {
			continue
		}
		for _, m := range listed.FindAllStringSubmatch(strings.Split(line, "|")[1], -1) {
			if !required[m[1]] {
				out = append(out, violation{fmt.Sprintf("%s:%d", doc, i+1), "explains " + m[1] + ", which nothing requires"})
			}
		}
	}
	return out
}
