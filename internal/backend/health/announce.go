package health

import (
	"context"
	"log/slog"
	"net/netip"
	"slices"
)

// announce tells of changes until the context ends.
func (c *Checker) announce(ctx context.Context) {
	var told []Verdict
	for {
		select {
		case <-ctx.Done():
			return
		case <-c.news:
		}
		now := c.Verdicts()
		if slices.EqualFunc(told, now, same) {
			continue
		}
		c.log(told, now)
		told = now
		if c.config.Changed != nil {
			c.config.Changed(slices.Clone(now))
		}
	}
}

// same tells whether two verdicts have the same consequences.
func same(a, b Verdict) bool {
	return a.Addr == b.Addr && a.State == b.State && a.Open == b.Open && a.Cut == b.Cut && a.Proven == b.Proven
}

// log writes what has changed of each backend.
func (c *Checker) log(old, now []Verdict) {
	before := make(map[netip.AddrPort]Verdict, len(old))
	for _, v := range old {
		before[v.Addr] = v
	}
	for _, v := range now {
		if was, known := before[v.Addr]; known && !same(was, v) {
			c.config.Log.LogAttrs(context.Background(), level(was, v), "backend "+v.State.String(),
				slog.String("backend", v.Addr.String()), slog.String("reason", v.Reason), slog.Bool("open", v.Open), slog.Bool("cut", v.Cut))
		}
	}
}

// level tells what is worse than before from what is not.
func level(was, v Verdict) slog.Level {
	if v.State > was.State || v.Cut && !was.Cut || v.State == Draining && was.Open && !v.Open {
		return slog.LevelWarn
	}
	return slog.LevelInfo
}
