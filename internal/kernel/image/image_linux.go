package image

import (
	"bufio"
	"bytes"
	"fmt"
	"io"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

// Release gives back the pages of the executable that were read so far. All packages that are linked are initialized, those
// of other commands too, and what that has touched counts as memory of the process from then on (docs/decisions/0007 has figures). What is
// needed is mapped again when it is used, from the page cache, which others share. It may be called at any time.
func Release() error {
	maps, err := os.ReadFile("/proc/self/smaps")
	if err != nil {
		return fmt.Errorf("find the executable in memory: %w", err)
	}
	self, err := os.Readlink("/proc/self/exe")
	if err != nil {
		return fmt.Errorf("find the executable: %w", err)
	}
	for _, m := range untouched(bytes.NewReader(maps), self) {
		// Of a private mapping that was never written, MADV_DONTNEED drops the pages alone: the file has the same.
		if _, _, no := unix.Syscall(unix.SYS_MADVISE, uintptr(m.start), uintptr(m.end-m.start), unix.MADV_DONTNEED); no != 0 {
			return fmt.Errorf("give back the executable's memory at %x: %w", m.start, no)
		}
	}
	return nil
}

// mapping is a part of a file that is mapped into memory.
type mapping struct{ start, end uint64 }

// untouched returns the mappings of a file that cannot be written and never were, from /proc/self/smaps (proc_pid_smaps(5)).
// Those that were have pages which the file does not: a position-independent executable is relocated before its data is
// protected, and a debugger writes its breakpoints into the code.
func untouched(maps io.Reader, file string) (out []mapping) {
	var m mapping
	ours := false
	for lines := bufio.NewScanner(maps); lines.Scan(); {
		words := strings.Fields(lines.Text())
		switch {
		case len(words) >= 5 && !strings.HasSuffix(words[0], ":"):
			_, err := fmt.Sscanf(words[0], "%x-%x", &m.start, &m.end)
			ours = err == nil && strings.Join(words[5:], " ") == file && !strings.Contains(words[1], "w") && strings.HasSuffix(words[1], "p")
		case ours && len(words) > 1 && words[0] == "Anonymous:" && words[1] == "0":
			out = append(out, m)
		}
	}
	return out
}
