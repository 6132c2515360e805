package demo

import (
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/term"
)

// clearLine goes to the line's start and empties it.
const clearLine = "\r\x1b[K"

// console prints lines, and on a terminal below them one that changes.
type console struct {
	out  io.Writer
	live bool // out is a terminal

	mu sync.Mutex // one line at a time
}

func newConsole(out io.Writer) *console {
	f, ok := out.(*os.File)
	return &console{out: out, live: ok && term.IsTerminal(int(f.Fd()))}
}

// line prints a line that stays.
func (c *console) line(format string, args ...any) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.live {
		io.WriteString(c.out, clearLine)
	}
	fmt.Fprintf(c.out, format+"\n", args...)
}

// status shows a line until the next line or status; only on a terminal.
func (c *console) status(format string, args ...any) {
	if !c.live {
		return
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	fmt.Fprintf(c.out, clearLine+format, args...)
}

// step shows what is being done while fn does it, then how long it took and what came of it.
func (c *console) step(title string, fn func() (detail string, err error)) error {
	c.status("… %s", title)
	begin := time.Now()
	detail, err := fn()
	if err != nil {
		c.line("✗ %-24s %5.1fs  failed", title, time.Since(begin).Seconds())
		return fmt.Errorf("%s: %w", title, err)
	}
	c.line("✓ %-24s %5.1fs  %s", title, time.Since(begin).Seconds(), detail)
	return nil
}
