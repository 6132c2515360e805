package kubeproxy

import (
	"context"
	"encoding/json"
	"fmt"
	"maps"
	"net/netip"
	"slices"
	"sync"
	"time"

	"varco.dev/internal/kubeproxy/config"
	"varco.dev/internal/kubeproxy/inspect"
	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/observe"
	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// configGroup is the key of the configuration in /configz, as upstream's.
const configGroup = "kubeproxy.config.k8s.io"

// proxyMode is what /proxyMode answers: the mode of kube-proxy whose rules these are.
const proxyMode = "nftables"

// pages is what the metrics address serves.
func (p *Proxy) pages() observe.Pages {
	s := p.config.Settings
	return observe.Pages{
		Component: "kube-proxy", Version: p.config.Version, Started: p.started, Metrics: p.metrics.handler(),
		Texts:  map[string]string{"/proxyMode": proxyMode},
		Config: map[string]any{configGroup: json.RawMessage(s.EffectiveJSON())},
		Flags:  p.config.Flags, Status: s.Gate("ComponentStatusz"), Profiling: s.Profiling, SetVerbosity: p.config.SetVerbosity,
	}
}

func (p *Proxy) metricsConfig() metricsConfig {
	c := metricsConfig{
		Families: p.config.Families, Version: p.config.Version, Health: p.loop.Health, States: p.states,
		Client: p.config.ClientMetrics,
	}
	if counters := p.config.Settings.Own.Counters; counters != config.CountNothing {
		c.Counts, c.Traffic = p.counts, counters == config.CountAll
	}
	return c
}

// states counts the ports by how far they are.
func (p *Proxy) states() (done, pending, failed int) {
	for _, s := range p.loop.Status() {
		switch s.Phase {
		case reconcile.Done:
			done++
		case reconcile.Failed:
			failed++
		default:
			pending++
		}
	}
	return done, pending, failed
}

// desired returns all ports as they should be. They are immutable.
func (p *Proxy) desired() (all service.Changes) {
	p.loop.View(func(t *service.Table) { all = t.All() })
	return all
}

// counts sums what was counted for the frontends of each port.
func (p *Proxy) counts(ctx context.Context) ([]ServiceCount, error) {
	counted, err := p.config.Kernel.Counters(ctx)
	if err != nil {
		return nil, fmt.Errorf("read the counters of Services: %w", err)
	}
	var out []ServiceCount
	for _, change := range p.desired().Ports {
		out = append(out, sum(change.New, counted))
	}
	return out, nil
}

func sum(p *service.Port, counted map[nft.Place]nft.Count) ServiceCount {
	total := ServiceCount{Key: p.Key}
	for _, f := range p.Frontends {
		c := counted[nft.CountedAt(p.Key, f)]
		total.Connections += c.Connections
		total.Packets += c.Packets
		total.Bytes += c.Bytes
	}
	return total
}

// Status implements inspect.Source.
func (p *Proxy) Status(ctx context.Context) (inspect.Status, error) {
	h, all, states := p.loop.Health(), p.desired(), p.loop.Status()
	s := inspect.Status{
		Node: p.config.NodeName, Version: p.config.Version, Ready: h.Synced,
		LastSuccess: timeOrNil(h.LastSuccess), PendingSince: timeOrNil(h.PendingFrom),
		Counters: string(p.config.Settings.Own.Counters), NodePortAddresses: all.NodeAddrs, ServiceCIDRs: all.CIDRs, Problems: p.problems.list(),
	}
	if h.Err != nil {
		s.Error = h.Err.Error()
	}
	if since, err := p.watcher.Lost(); !since.IsZero() {
		s.Problems = append(s.Problems, fmt.Sprintf("the API server does not answer since %s: %v", since.Format(time.RFC3339), err))
	}
	s.Problems = append(s.Problems, p.damage.list()...)
	counted, err := p.config.Kernel.Counters(ctx)
	if err != nil && h.Synced {
		s.Problems = append(s.Problems, err.Error())
	}
	for _, change := range all.Ports {
		port := inspect.Describe(change.New)
		port.State, port.Since, port.Error = stateOf(states[change.New.Key])
		n := sum(change.New, counted)
		port.Connections, port.Packets, port.Bytes = n.Connections, n.Packets, n.Bytes
		s.Ports = append(s.Ports, port)
		if excess(change.New) > 0 {
			s.Problems = append(s.Problems, excessText(change.New))
		}
	}
	return s, nil
}

func stateOf(s reconcile.State) (phase string, since *time.Time, text string) {
	if s.Err != nil {
		text = s.Err.Error()
	}
	return s.Phase.String(), timeOrNil(s.Since), text
}

func timeOrNil(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

// Explain implements inspect.Source.
func (p *Proxy) Explain(_ context.Context, q inspect.Query) (x inspect.Explanation, err error) {
	p.loop.View(func(t *service.Table) {
		x = inspect.Explainer{
			Table: t, Client: p.client(t, q.From), At: p.ports.serves, LocalReject: p.config.Settings.Own.LocalReject,
		}.Explain(q)
	})
	return x, nil
}

// client tells what the rules take a client for. Where they go by the interface that it comes through, an address of the
// node's pods stands for that.
func (p *Proxy) client(t *service.Table, from netip.Addr) service.Source {
	if !from.IsValid() {
		return service.SourceElse
	}
	if p.ports.isLocal(from) || from.IsLoopback() {
		return service.SourceNode
	}
	detect := p.config.Settings.DetectLocal
	networks := detect.CIDRs
	if detect.Mode == config.ByNodeCIDR {
		networks = p.config.PodCIDRs
	}
	for _, n := range networks {
		if n.Contains(from) {
			return service.SourcePod
		}
	}
	if detect.Interface != "" && t.HasLocal(from) {
		return service.SourcePod
	}
	return service.SourceElse
}

// problems is what is wrong beside the traffic, by what was being done.
type problems struct {
	mu  sync.Mutex // guards all
	all map[string]error
}

func newProblems() *problems { return &problems{all: map[string]error{}} }

func (p *problems) set(doing string, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.all[doing] = err
}

func (p *problems) clear(doing string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	delete(p.all, doing)
}

func (p *problems) list() (out []string) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, doing := range slices.Sorted(maps.Keys(p.all)) {
		out = append(out, p.all[doing].Error())
	}
	return out
}
