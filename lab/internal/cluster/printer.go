package cluster

import (
	"context"
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// Printer shows the steps of a start. On a terminal each step is a line that counts the seconds while it runs;
// elsewhere a line is printed once a step is done.
type Printer struct {
	out      io.Writer
	terminal bool

	// mu guards the fields below and the order of what is written.
	mu    sync.Mutex
	steps []shownStep
	drawn int // lines on the screen that a redraw replaces
}

type shownStep struct {
	Step
	began time.Time
}

// NewPrinter returns a printer to out; terminal says that out understands ANSI control sequences.
func NewPrinter(out io.Writer, terminal bool) *Printer { return &Printer{out: out, terminal: terminal} }

// Up is the function Up, shown by the printer.
func (p *Printer) Up(ctx context.Context, cfg Config) error {
	drawing, stop := context.WithCancel(ctx)
	var drawer sync.WaitGroup
	drawer.Go(func() { _ = p.Run(drawing) }) // returns nil only
	defer drawer.Wait()
	defer stop()
	return Up(ctx, cfg, p.Step)
}

// redrawPeriod is how often the seconds of running steps are counted on.
const redrawPeriod = 100 * time.Millisecond

// Run keeps a terminal up to date until ctx ends.
func (p *Printer) Run(ctx context.Context) error {
	if !p.terminal {
		return nil
	}
	tick := time.NewTicker(redrawPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			p.mu.Lock()
			p.draw()
			p.mu.Unlock()
		}
	}
}

// Step shows a change of a step. It is a Progress.
func (p *Printer) Step(s Step) {
	p.mu.Lock()
	defer p.mu.Unlock()
	found := false
	for i := range p.steps {
		if p.steps[i].Title == s.Title {
			p.steps[i].Step, found = s, true
		}
	}
	if !found {
		p.steps = append(p.steps, shownStep{Step: s, began: time.Now()})
	}
	if p.terminal {
		p.draw()
	} else if s.State != Running {
		fmt.Fprintln(p.out, stepLine(s, s.Took))
	}
}

// draw writes all steps over what it wrote before. It needs mu.
func (p *Printer) draw() {
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA", p.drawn)
	}
	for _, s := range p.steps {
		took := s.Took
		if s.State == Running {
			took = time.Since(s.began)
		}
		b.WriteString("\x1b[2K" + stepLine(s.Step, took) + "\n")
	}
	p.drawn = len(p.steps)
	_, _ = io.WriteString(p.out, b.String())
}

// stepLine is one line: mark, title, seconds, and what was made. Why a step failed is for the error.
func stepLine(s Step, took time.Duration) string {
	mark, detail := "…", ""
	switch s.State {
	case Done:
		mark, detail = "✓", s.Detail
	case Failed:
		mark, detail = "✗", "failed"
	}
	return strings.TrimRight(fmt.Sprintf("%s %-24s %5.1fs  %s", mark, s.Title, took.Seconds(), detail), " ")
}
