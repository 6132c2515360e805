package kubeproxy

import (
	"fmt"
	"sync"
	"time"

	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/service"
)

// damageAge is for how long the status tells that another program has changed the tables.
const damageAge = time.Hour

// damage remembers what other programs have done to the tables. The zero value remembers nothing.
type damage struct {
	mu    sync.Mutex // guards the fields below
	times int
	last  time.Time
	what  string
}

func (d *damage) note(what string) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.times, d.last, d.what = d.times+1, time.Now(), what
}

// list returns a sentence, or nothing if nothing happened lately.
func (d *damage) list() []string {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.last.IsZero() || time.Since(d.last) > damageAge {
		return nil
	}
	return []string{fmt.Sprintf("another program has changed the tables of Services, which is repaired each time: %d times, last at %s: %s",
		d.times, d.last.Format(time.RFC3339), d.what)}
}

// repair has repaired what another program has done.
func (p *Proxy) repair(what string) {
	p.damage.note(what)
	p.loop.Repair(what)
}

// excess tells how many endpoints a port has beyond those that the kernel's numbers allow, in either set.
func excess(p *service.Port) int {
	return max(0, max(len(p.Cluster), len(p.Local))-nft.MaxBackends)
}

func excessText(p *service.Port) string {
	return fmt.Sprintf("%s has more endpoints than can be served: %d are left out", p.Key, excess(p))
}

// reportExcess logs ports that have come to have too many endpoints. That there are some more or less is not worth a line
// each time.
func (p *Proxy) reportExcess(c service.Changes) {
	for _, change := range c.Ports {
		if change.New != nil && excess(change.New) > 0 && (change.Old == nil || excess(change.Old) == 0) {
			p.config.Log.Warn("a Service has more endpoints than can be served, the others are left out",
				"service", change.New.Key.Service, "port", change.New.Key.Port, "served", nft.MaxBackends, "others", excess(change.New))
		}
	}
}
