package main_test

import (
	"cmp"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"varco.dev/internal/apiserverlb"
	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/apiload"
	"varco.dev/lab/internal/controlplane"
	"varco.dev/lab/internal/demo"
)

// balanced is a lab of three API servers, all of whose clients go through varco apiserver-lb.
type balanced struct {
	*lab
	layout controlplane.Layout
	client *nettest.Namespace // where the load is
	load   *apiload.Load

	readySince metav1.Time // of the node
}

// shutdownDelay is how long an API server that is told to end still serves.
const shutdownDelay = 5 * time.Second

// TestLabLB hurts API servers behind varco apiserver-lb in all ways that are known to have hurt clusters, under the load of a
// hundred informers, of requests over kept connections, and of new connections.
func TestLabLB(t *testing.T) {
	nettest.NeedRoot(t)
	b := upBalanced(t)
	b.startLoad(t)
	for _, s := range []struct {
		name string
		test func(*testing.T)
	}{
		{"all serve", b.allServe},
		{"killed, and back", b.killed},
		{"paused", b.paused},
		{"cable cut", b.cableCut},
		{"partition", b.partition},
		{"etcd stalled", b.etcdStalled},
		{"slow", b.slow},
		{"rolling restart", b.rollingRestart},
		{"certificate expired", b.expired},
		{"slices empty", b.slicesEmpty},
		{"configuration changed", b.reconfigured},
		{"names that do not resolve", b.namesFail},
		{"upgrade", b.upgraded},
		{"nodes and controllers", b.othersGoOn},
		{"all down, and back", b.allDown},
		{"demo", b.demo},
	} {
		t.Run(s.name, s.test)
	}
}

// upBalanced starts the lab.
func upBalanced(t *testing.T) *balanced {
	conf, varco := binaries(t)
	conf.Nodes, conf.APIServers, conf.APIServerLB, conf.ShutdownDelay = 1, 3, varco, shutdownDelay
	b := &balanced{lab: bringUp(t, conf, varco)}
	t.Cleanup(func() {
		if t.Failed() {
			t.Logf("log of varco apiserver-lb:\n%s", b.logOf(t, controlplane.BalancerName))
		}
	})
	var err error
	if b.layout, err = b.Layout(); err != nil {
		t.Fatal(err)
	}
	b.client = b.open(t, "client")
	return b
}

// demo is what people are shown, with a load of its own.
func (b *balanced) demo(t *testing.T) {
	b.load.Stop()
	if err := demo.ShowBalancer(t.Context(), b.Cluster, t.Output()); err != nil {
		t.Error(err)
	}
}

// startLoad starts the clients that faults are to hurt.
func (b *balanced) startLoad(t *testing.T) {
	way := b.configFor(t, b.balancer())
	var servers []*rest.Config
	for _, h := range b.layout.ControlPlanes {
		servers = append(servers, b.configFor(t, h))
	}
	var err error
	b.load, err = apiload.Start(t.Context(), apiload.Config{
		Way: way, Servers: servers, Dial: b.client.DialContext, Namespace: "load",
		Watches: 100, Kept: 10, Requests: 200, Fresh: 50, Writes: 10,
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(b.load.Stop)
}

func (b *balanced) balancer() controlplane.Host { return *b.layout.Balancer }

// configFor is the administrator's configuration for the API at a machine, asked from the client.
func (b *balanced) configFor(t *testing.T, h controlplane.Host) *rest.Config {
	t.Helper()
	conf, err := b.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	conf = rest.CopyConfig(conf)
	conf.Host, conf.Dial = h.APIServer(), b.client.DialContext
	return conf
}

// settle is how long informers may take to hold what the API has.
const settle = 20 * time.Second

// during does something under load for some time, and reports what clients noticed. Nothing may be lost, whatever it is.
func (b *balanced) during(t *testing.T, what string, least time.Duration, do func()) apiload.Report {
	t.Helper()
	begin := time.Now()
	do()
	time.Sleep(time.Until(begin.Add(least))) // the time under load is what is tested
	if err := b.load.Settle(t.Context(), settle); err != nil {
		t.Errorf("%s: %v", what, err)
	}
	r := b.load.Since(begin)
	t.Logf("%s, %v", what, r)
	if r.Watches.Lost > 0 {
		t.Errorf("%s: %d events were lost", what, r.Watches.Lost)
	}
	return r
}

// Bars of a fault of one API server.
const (
	mostSilent    = 6 * time.Second // until watches have moved on
	mostFreshLost = 0.01            // of new connections
	freshLostFor  = time.Second     // at most
)

// movesOn checks what clients notice of one API server that serves no more.
func movesOn(t *testing.T, r apiload.Report) {
	t.Helper()
	if r.Watches.Silent > mostSilent {
		t.Errorf("watches were silent for %s", r.Watches.Silent)
	}
	if r.Watches.MostRelists > 1 {
		t.Errorf("an informer asked for all objects %d times", r.Watches.MostRelists)
	}
	if r.Fresh.Share() > mostFreshLost || r.Fresh.Span > freshLostFor {
		t.Errorf("new connections: %v", r.Fresh)
	}
}

// nothingFails checks that clients noticed nothing that they must not.
func nothingFails(t *testing.T, r apiload.Report) {
	t.Helper()
	if r.Kept.Sent == 0 || r.Kept.Failed > 0 || r.Fresh.Sent == 0 || r.Fresh.Failed > 0 {
		t.Errorf("requests: %v; %v", r.Kept, r.Fresh)
	}
}

func server(i int) string { return fmt.Sprintf("kube-apiserver-%d", i) }

func (b *balanced) stop(t *testing.T, component string, grace time.Duration) {
	t.Helper()
	if err := b.Stop(t.Context(), component, grace); err != nil {
		t.Error(err)
	}
}

func (b *balanced) start(t *testing.T, component string) {
	t.Helper()
	if err := b.Start(t.Context(), component); err != nil {
		t.Error(err)
	}
}

func (b *balanced) signal(t *testing.T, component string, sig unix.Signal) {
	t.Helper()
	if err := b.Signal(t.Context(), component, sig); err != nil {
		t.Error(err)
	}
}

// readyItself says whether an API server is ready, asked by way of nobody.
func (b *balanced) readyItself(t *testing.T, i int) (state string, ok bool) {
	conf, err := rest.TLSConfigFor(b.configFor(t, b.layout.ControlPlanes[i]))
	if err != nil {
		return err.Error(), false
	}
	conf.InsecureSkipVerify = true // the certificate may be what is wrong
	return ask(t.Context(), &http.Client{Timeout: time.Second, Transport: &http.Transport{
		DialContext: b.client.DialContext, TLSClientConfig: conf, DisableKeepAlives: true,
	}}, b.layout.ControlPlanes[i].APIServer()+"/readyz")
}

func ask(ctx context.Context, client *http.Client, url string) (state string, ok bool) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err.Error(), false
	}
	resp, err := client.Do(req)
	if err != nil {
		return err.Error(), false
	}
	resp.Body.Close()
	return resp.Status, resp.StatusCode == http.StatusOK
}

// status is what the balancer says of itself.
func (b *balanced) status(t *testing.T) (s apiserverlb.Status, err error) {
	t.Helper()
	return statusAt(t.Context(), b.client, netip.AddrPortFrom(b.balancer().Addrs[0], controlplane.BalancerMetricsPort))
}

func statusAt(ctx context.Context, from *nettest.Namespace, at netip.AddrPort) (s apiserverlb.Status, err error) {
	client := &http.Client{Timeout: 2 * time.Second, Transport: &http.Transport{DialContext: from.DialContext, DisableKeepAlives: true}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+at.String()+"/status", nil)
	if err != nil {
		return s, err
	}
	resp, err := client.Do(req)
	if err != nil {
		return s, err
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return s, errors.New(resp.Status)
	}
	return s, json.NewDecoder(resp.Body).Decode(&s)
}

// awaitStates waits until the balancer says that all API servers are Up, except those whose states are named. One that is Down
// may be listed no more, since the API servers themselves take it off their list after 15 seconds at most.
func (b *balanced) awaitStates(t *testing.T, except map[int]string) {
	t.Helper()
	b.wait(t, fmt.Sprintf("all backends to be up except %v", except), func() (string, bool) {
		s, err := b.status(t)
		ok := err == nil
		for i, h := range b.layout.ControlPlanes {
			want, state := cmp.Or(except[i], "Up"), stateOf(s, h).State
			ok = ok && (state == want || state == "" && want == "Down")
		}
		return describe(s, err), ok
	})
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

func describe(s apiserverlb.Status, err error) string {
	if err != nil {
		return err.Error()
	}
	text := &strings.Builder{}
	_ = apiserverlb.WriteTable(text, s, time.Now()) // to a string
	return "\n" + text.String()
}

// allServe waits until all API servers are up, and looks at the load without a fault.
func (b *balanced) allServe(t *testing.T) {
	b.readySince = b.nodeReady(t)
	b.awaitStates(t, nil)
	nothingFails(t, b.during(t, "no fault", 2*time.Second, func() {}))
}

// nodeReady returns since when the node is ready.
func (b *balanced) nodeReady(t *testing.T) metav1.Time {
	t.Helper()
	node, err := b.lab.client.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range node.Status.Conditions {
		if c.Type == corev1.NodeReady && c.Status == corev1.ConditionTrue {
			return c.LastTransitionTime
		}
	}
	t.Errorf("the node is not ready: %+v", node.Status.Conditions)
	return metav1.Time{}
}

// othersGoOn looks at what goes through the balancer besides the load: after all faults the node is still ready, and has been
// all the time, and no controller has ended because it could not renew its lease. On the machines that were taken off the
// network, by a cut and by a partition, they may.
func (b *balanced) othersGoOn(t *testing.T) {
	if since := b.nodeReady(t); !since.Equal(&b.readySince) {
		t.Errorf("the node is ready since %s, at the start it was since %s", since, b.readySince)
	}
	list, err := b.Components(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.State != "running" && c.Host == b.layout.ControlPlanes[0].Name {
			t.Errorf("%s is %s (%s) since %s", c.Name, c.State, c.Error, c.Since)
		}
	}
}
