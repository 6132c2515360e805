package demo

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/netip"
	"strings"
	"text/tabwriter"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"
	"varco.dev/internal/apiserverlb"
	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/apiload"
	"varco.dev/lab/internal/cluster"
	"varco.dev/lab/internal/controlplane"
)

// The load on API servers while they fail, and what is taken for good.
const (
	balancedWatches  = 30
	balancedKept     = 6
	balancedRequests = 60
	balancedFresh    = 20
	balancedWrites   = 10

	faultTime     = 7 * time.Second  // that each fault lasts
	faultWait     = 20 * time.Second // for a backend's state to be as it must
	mostSilent    = 6 * time.Second  // that a watch may miss events
	mostFreshLost = 0.01             // of new connections
)

// balanced shows API servers behind varco apiserver-lb.
type balanced struct {
	console *console
	lab     *cluster.Cluster
	layout  controlplane.Layout
	client  *nettest.Namespace
	load    *apiload.Load
}

// ShowBalancer kills one and pauses another of the three API servers of a lab behind varco apiserver-lb, while informers watch
// and requests go on, and shows what came of it. The error is ErrFailed if something is not as it must be.
func ShowBalancer(ctx context.Context, lab *cluster.Cluster, out io.Writer) (err error) {
	b := &balanced{console: newConsole(out), lab: lab}
	if b.layout, err = lab.Layout(); err != nil {
		return err
	}
	if b.layout.Balancer == nil || len(b.layout.ControlPlanes) < 3 {
		return errors.New("the lab has no three API servers behind varco apiserver-lb")
	}
	if b.client, err = lab.Namespace("client"); err != nil {
		return err
	}
	defer b.client.Close()
	err = b.console.step("clients", func() (string, error) {
		return fmt.Sprintf("%d watches; each second %d requests the way of kubectl, on new connections, and %d that of controllers, on %d kept ones",
			balancedWatches, balancedFresh, balancedRequests, balancedKept), b.start(ctx)
	})
	if err != nil {
		return err
	}
	defer b.load.Stop()
	return b.show(ctx)
}

func (b *balanced) start(ctx context.Context) error {
	way, err := b.configFor(*b.layout.Balancer)
	if err != nil {
		return err
	}
	var servers []*rest.Config
	for _, h := range b.layout.ControlPlanes {
		conf, err := b.configFor(h)
		if err != nil {
			return err
		}
		servers = append(servers, conf)
	}
	b.load, err = apiload.Start(ctx, apiload.Config{
		Way: way, Servers: servers, Dial: b.client.DialContext, Namespace: "watched",
		Watches: balancedWatches, Kept: balancedKept, Requests: balancedRequests, Fresh: balancedFresh, Writes: balancedWrites,
	})
	return err
}

// configFor is the administrator's configuration for the API at a machine, asked from the client outside.
func (b *balanced) configFor(h controlplane.Host) (*rest.Config, error) {
	conf, err := b.lab.RESTConfig()
	if err != nil {
		return nil, err
	}
	conf = rest.CopyConfig(conf)
	conf.Host, conf.Dial = h.APIServer(), b.client.DialContext
	return conf, nil
}

// fault is something that happens to API servers. States are those that the balancer must give them, by number; Up is not
// listed.
type fault struct {
	title  string
	states map[int]string
	lasts  time.Duration // beyond the balancer's knowing of it
	do     func() error
}

func (b *balanced) plan(ctx context.Context) []fault {
	const victim, hung = "kube-apiserver-1", "kube-apiserver-2"
	return []fault{
		{"no fault", nil, time.Second, func() error { return nil }},
		{"one killed", map[int]string{1: "Down"}, faultTime, func() error { return b.lab.Stop(ctx, victim, 0) }},
		{"it is back", nil, time.Second, func() error { return b.lab.Start(ctx, victim) }},
		{"another paused", map[int]string{2: "Down"}, faultTime, func() error { return b.lab.Signal(ctx, hung, unix.SIGSTOP) }},
		{"it goes on", nil, time.Second, func() error { return b.lab.Signal(ctx, hung, unix.SIGCONT) }},
	}
}

func (b *balanced) show(ctx context.Context) error {
	var states, clients strings.Builder
	left, right := tabwriter.NewWriter(&states, 0, 0, 2, ' ', 0), tabwriter.NewWriter(&clients, 0, 0, 2, ' ', 0)
	fmt.Fprintln(left, "WHEN\tAPI SERVER\tEXPECTED\tSTATE\tCONNECTIONS\tENDED\tWHY")
	fmt.Fprintln(right, "WHEN\tWATCHES MOVED\tSILENT FOR\tRELISTS\tEVENTS LOST\tKUBECTL'S WAY, FAILED\tCONTROLLERS' WAY, FAILED\tSENT AGAIN")
	wrong := 0
	for _, f := range b.plan(ctx) {
		err := b.console.step(f.title, func() (string, error) {
			n, err := b.suffer(ctx, f, left, right)
			wrong += n
			return fmt.Sprintf("%d as expected", len(b.layout.ControlPlanes)-n), err
		})
		if err != nil {
			return err
		}
	}
	if err := errors.Join(left.Flush(), right.Flush()); err != nil {
		return err
	}
	b.console.line("\n%s\n%s", states.String(), clients.String())
	if wrong > 0 {
		return ErrFailed
	}
	return nil
}

// suffer lets a fault happen, waits until the balancer has seen it and clients have got over it, and adds rows of what the
// balancer says and of what clients noticed. It returns how many things are wrong.
func (b *balanced) suffer(ctx context.Context, f fault, states, clients io.Writer) (wrong int, err error) {
	before, err := b.status(ctx)
	if err != nil {
		return 0, err
	}
	begin := time.Now()
	if err := f.do(); err != nil {
		return 0, err
	}
	if err := pause(ctx, f.lasts); err != nil {
		return 0, err
	}
	after, err := b.await(ctx, f)
	if err != nil {
		return 0, err
	}
	wrong = b.addStates(states, f, before, after)
	missing := b.load.Settle(ctx, faultWait)
	r := b.load.Since(begin)
	mark := ""
	if missing != nil || !good(r, f) {
		wrong, mark = wrong+1, "✗ "
	}
	w := r.Watches
	fmt.Fprintf(clients, "%s%s\t%d of %d\t%.1f s\t%d\t%d\t%d of %d\t%d of %d\t%d\n", mark, f.title, w.Moved, w.Informers, w.Silent.Seconds(),
		w.Relists, w.Lost, r.Fresh.Failed, r.Fresh.Sent, r.Kept.Failed, r.Kept.Sent, r.Kept.Broken)
	return wrong, ctx.Err()
}

// good says whether clients noticed no more than they may: what was under way at an API server that is killed or hangs is
// lost with it, and nothing else.
func good(r apiload.Report, f fault) bool {
	w := r.Watches
	return w.Lost == 0 && w.Silent <= mostSilent && w.MostRelists <= 1 && r.Fresh.Share() <= mostFreshLost &&
		(r.Kept.Failed == 0 || f.states != nil)
}

func (b *balanced) addStates(out io.Writer, f fault, before, after apiserverlb.Status) (wrong int) {
	title := f.title
	for i, h := range b.layout.ControlPlanes {
		s, ended := stateOf(after, h), 0
		if f.expected(i) == "Down" {
			ended = after.Moved["down"] - before.Moved["down"]
		}
		state := cmp.Or(s.State, "not listed")
		if !f.fits(i, s) {
			state = "✗ " + state
			wrong++
		}
		fmt.Fprintf(out, "%s\tkube-apiserver-%d\t%s\t%s\t%d\t%d\t%s\n", title, i, f.expected(i), state, s.Connections, ended, s.Reason)
		title = ""
	}
	return wrong
}

func (f fault) expected(i int) string { return cmp.Or(f.states[i], "Up") }

// fits says whether a state is the one expected of an API server. One that is gone is taken off the list in the API after
// 15 seconds at most, and is no backend any more then.
func (f fault) fits(i int, s apiserverlb.BackendState) bool {
	return s.State == f.expected(i) || s.State == "" && f.expected(i) == "Down"
}

// await waits until the balancer says of all API servers what it must, and returns what it says at last.
func (b *balanced) await(ctx context.Context, f fault) (s apiserverlb.Status, err error) {
	for end := time.Now().Add(faultWait); ; {
		if s, err = b.status(ctx); err != nil {
			return s, err
		}
		fine := true
		for i, h := range b.layout.ControlPlanes {
			fine = fine && f.fits(i, stateOf(s, h))
		}
		if fine || time.Now().After(end) {
			return s, nil
		}
		if err := pause(ctx, 100*time.Millisecond); err != nil {
			return s, err
		}
	}
}

// stateOf finds the backend on a machine; the zero value is one that the balancer does not have.
func stateOf(s apiserverlb.Status, h controlplane.Host) apiserverlb.BackendState {
	for _, one := range s.Backends {
		if one.Address == netip.AddrPortFrom(h.Addrs[0], controlplane.APIServerPort).String() {
			return one
		}
	}
	return apiserverlb.BackendState{}
}

// status asks the balancer.
func (b *balanced) status(ctx context.Context) (s apiserverlb.Status, err error) {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DialContext: b.client.DialContext, DisableKeepAlives: true}}
	at := netip.AddrPortFrom(b.layout.Balancer.Addrs[0], controlplane.BalancerMetricsPort)
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.String()+"/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return s, fmt.Errorf("ask varco apiserver-lb for its status: %w", err)
	}
	defer resp.Body.Close()
	return s, json.NewDecoder(resp.Body).Decode(&s)
}
