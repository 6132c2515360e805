//go:build linux

package image

import (
	"bytes"
	"fmt"
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

// TestUntouched has two mappings of which the file has another content: one that can be written, and one that was, as a
// position-independent executable's is when it is relocated.
func TestUntouched(t *testing.T) {
	maps := `00400000-02a00000 r-xp 00000000 fe:00 12 /usr/bin/varco
Size:              39000 kB
Anonymous:             0 kB
VmFlags: rd ex mr mw me
02a00000-06000000 r--p 02600000 fe:00 12 /usr/bin/varco
Anonymous:             0 kB
06000000-06100000 r--p 05c00000 fe:00 12 /usr/bin/varco
Anonymous:             4 kB
06100000-06200000 rw-p 05d00000 fe:00 12 /usr/bin/varco
Anonymous:             0 kB
06200000-06300000 rw-p 00000000 00:00 0
Anonymous:             0 kB
c000000000-c000400000 r--p 00000000 00:00 0
Anonymous:             0 kB
7f0000000000-7f0000001000 r--p 00000000 fe:00 13 /usr/bin/other
Anonymous:             0 kB
7f0000002000-7f0000003000 r--s 00000000 fe:00 12 /usr/bin/varco
Anonymous:             0 kB
7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0 [vdso]
Anonymous:             0 kB
`
	want := []mapping{{0x400000, 0x2a00000}, {0x2a00000, 0x6000000}}
	if diff := cmp.Diff(want, untouched(strings.NewReader(maps), "/usr/bin/varco"), cmp.AllowUnexported(mapping{})); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
}

// TestRelease wants less of the executable in memory afterwards, and all of it to work as before.
func TestRelease(t *testing.T) {
	before := fileMemory(t)
	if err := Release(); err != nil {
		t.Fatal(err)
	}
	if after := fileMemory(t); after >= before {
		t.Errorf("%d KiB of files were in memory, %d afterwards", before, after)
	}
	if got := fmt.Sprintf("%v", map[string]int{"a": 1}); got != "map[a:1]" {
		t.Errorf("got %s", got)
	}
}

// fileMemory returns how much of files this process has in memory, in KiB.
func fileMemory(t *testing.T) (kib int) {
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := bytes.Cut(status, []byte("RssFile:"))
	if _, err := fmt.Sscan(string(rest), &kib); !ok || err != nil {
		t.Fatalf("no RssFile in %s: %v", status, err)
	}
	return kib
}
