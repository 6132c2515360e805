package apiload

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"
)

// Report is what clients noticed in some time.
type Report struct {
	Took        time.Duration
	Kept, Fresh Requests
	Watches     Watches
}

// String is a line for people.
func (r Report) String() string {
	return fmt.Sprintf("in %s: %s; kept connections: %s; new ones: %s", seconds(r.Took), r.Watches, r.Kept, r.Fresh)
}

// String is a part of a line.
func (w Watches) String() string {
	return fmt.Sprintf("%d of %d watches silent, %s at most, %d relists (%d of one), %d watches again, %d events lost",
		w.Moved, w.Informers, seconds(w.Silent), w.Relists, w.MostRelists, w.Again, w.Lost)
}

// String is a part of a line.
func (r Requests) String() string {
	text := fmt.Sprintf("%d of %d failed", r.Failed, r.Sent)
	if r.Failed > 0 {
		text += " within " + seconds(r.Span)
	}
	if r.Broken > 0 {
		text += fmt.Sprintf(", %d broken", r.Broken)
	}
	text += ", slowest " + seconds(r.Slowest)
	for _, e := range slices.Sorted(maps.Keys(r.Errors)) {
		text += fmt.Sprintf(", %d × %s", r.Errors[e], strings.TrimSpace(e))
	}
	return text
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.2f s", d.Seconds()) }
