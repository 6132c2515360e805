package demo

import (
	"context"
	_ "embed"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/controlplane"
)

// pods is how many pods the Deployment begins with, as in services.yaml.
const pods = 3

//go:embed services.yaml
var servicesManifest []byte

// Lab is the running lab as the demo needs it.
type Lab interface {
	// RESTConfig is how to reach the API server as administrator.
	RESTConfig() (*rest.Config, error)
	// Namespace opens the network namespace of a node, of the client or of a pod (NAMESPACE/POD). The caller closes it.
	Namespace(name string) (*nettest.Namespace, error)
}

// Config says what the demo shows.
type Config struct {
	// Manifest is the path of the manifest that runs the node data plane. ${APISERVER} in it stands for the URL of the
	// first API server, ${CLUSTER_CIDR} for the networks of pods.
	Manifest string
	// Requests is how many requests are sent while pods come and go.
	Requests int
	// Out is where it is shown; on a terminal some lines change while they are shown.
	Out io.Writer
}

// ErrFailed means that the demo ran to its end and something was not as it must be; what, has been printed.
var ErrFailed = errors.New("the demo failed: see above")

// demo is one run.
type demo struct {
	Config
	console  *console
	lab      Lab
	client   kubernetes.Interface
	applier  *applier
	services services
	sources  sources
	opened   []*nettest.Namespace
}

// Show runs the demo in the lab and returns the addresses that a person may go on with.
func Show(ctx context.Context, lab Lab, cfg Config) (Endpoints, error) {
	d := &demo{Config: cfg, console: newConsole(cfg.Out), lab: lab, sources: sources{}}
	defer d.close()
	if err := d.connect(); err != nil {
		return Endpoints{}, err
	}
	for _, s := range []struct {
		title string
		do    func(context.Context) (detail string, err error)
	}{
		{"kube-proxy", d.runProxies},
		{"test server", d.deploy},
		{"addresses", d.awaitAll},
	} {
		if err := d.console.step(s.title, func() (string, error) { return s.do(ctx) }); err != nil {
			return Endpoints{}, err
		}
	}
	wrong, err := d.checkAll(ctx)
	if err != nil {
		return d.services.endpoints(), err
	}
	failed, err := d.roll(ctx)
	if err == nil && wrong+failed > 0 {
		err = ErrFailed
	}
	return d.services.endpoints(), err
}

func (d *demo) connect() error {
	cfg, err := d.lab.RESTConfig()
	if err != nil {
		return err
	}
	cfg = rest.CopyConfig(cfg)
	cfg.QPS = -1 // one client of few
	// That external IPs are deprecated is for their users to know; here they are shown to work.
	cfg.WarningHandler = rest.NoWarnings{}
	if d.client, err = kubernetes.NewForConfig(cfg); err != nil {
		return err
	}
	d.applier, err = newApplier(cfg)
	return err
}

func (d *demo) close() {
	for _, ns := range d.opened {
		_ = ns.Close() // a handle only
	}
}

// variables replaces what stands for something in Config.Manifest.
func variables() *strings.Replacer {
	return strings.NewReplacer(
		"${APISERVER}", controlplane.NewHost("", controlplane.FirstControlPlane).APIServer(),
		"${CLUSTER_CIDR}", fmt.Sprintf("%s,%s", nettest.PodNet.V4, nettest.PodNet.V6),
	)
}

func (d *demo) runProxies(ctx context.Context) (string, error) {
	text, err := os.ReadFile(d.Manifest)
	if err != nil {
		return "", fmt.Errorf("read the manifest of kube-proxy: %w", err)
	}
	objects, err := d.applier.apply(ctx, []byte(variables().Replace(string(text))))
	if err != nil {
		return "", err
	}
	var sets []string
	for _, o := range objects {
		if o.GetKind() != "DaemonSet" {
			continue
		}
		n, err := awaitDaemonSet(ctx, d.client, o.GetNamespace(), o.GetName())
		if err != nil {
			return "", err
		}
		sets = append(sets, fmt.Sprintf("DaemonSet %s ready on %d nodes", o.GetName(), n))
	}
	return strings.Join(sets, ", "), nil
}

// deploy applies the Services, gives the load balancer its addresses, and waits for the pods.
func (d *demo) deploy(ctx context.Context) (string, error) {
	if _, err := d.applier.apply(ctx, servicesManifest); err != nil {
		return "", err
	}
	if err := d.readServices(ctx); err != nil {
		return "", err
	}
	if err := awaitPod(ctx, d.client, "visitor"); err != nil {
		return "", err
	}
	if _, err := awaitPods(ctx, d.client, pods); err != nil {
		return "", err
	}
	return fmt.Sprintf("Deployment echo with %d pods, 5 Services", pods), d.openSources(ctx)
}

// readServices writes the load balancer's addresses, and reads those that the API server gave.
func (d *demo) readServices(ctx context.Context) error {
	services := d.client.CoreV1().Services(metav1.NamespaceDefault)
	status := []byte(`{"status":{"loadBalancer":{"ingress":[{"ip":"198.51.100.10"},{"ip":"2001:db8:51::10"}]}}}`)
	_, err := services.Patch(ctx, "echo-lb", types.MergePatchType, status, metav1.PatchOptions{}, "status")
	if err != nil {
		return fmt.Errorf("write the load balancer's addresses: %w", err)
	}
	for name, to := range map[string]**corev1.Service{
		"echo": &d.services.echo, "echo-nodeport": &d.services.nodePort, "echo-lb": &d.services.lb,
		"echo-external": &d.services.external, "empty": &d.services.empty,
	} {
		if *to, err = services.Get(ctx, name, metav1.GetOptions{}); err != nil {
			return err
		}
	}
	return nil
}

// openSources opens the namespaces; the node is the last one, and the addresses asked are the first one's, so that
// requests cross the network where there is more than one node.
func (d *demo) openSources(ctx context.Context) error {
	nodes, err := d.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	if len(nodes.Items) == 0 {
		return errors.New("the cluster has no nodes")
	}
	d.services.node = nodeAddrs(&nodes.Items[0])
	echo, err := echoPods(ctx, d.client)
	if err != nil {
		return err
	}
	for source, name := range map[string]string{
		fromPod:    "default/visitor",
		fromNode:   nodes.Items[len(nodes.Items)-1].Name,
		fromClient: "client",
		fromItself: "default/" + echo[0].Name,
	} {
		ns, err := d.lab.Namespace(name)
		if err != nil {
			return err
		}
		d.opened = append(d.opened, ns)
		d.sources[source] = ns.DialContext
	}
	return nil
}

func nodeAddrs(n *corev1.Node) []netip.Addr {
	var texts []string
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			texts = append(texts, a.Address)
		}
	}
	return addrs(texts)
}

// awaitAll waits until every address answers as it must. One that does not, in the time that it has, shows in the table.
func (d *demo) awaitAll(ctx context.Context) (string, error) {
	plan := d.services.plan()
	var missing atomic.Int64
	g := &errgroup.Group{}
	g.SetLimit(8)
	for _, c := range plan {
		g.Go(func() error {
			ok, err := d.sources.await(ctx, c, pods)
			if !ok {
				missing.Add(1)
			}
			return err
		})
	}
	err := g.Wait()
	if n := missing.Load(); n > 0 {
		return fmt.Sprintf("%d of %d ways to them do not work", n, len(plan)), err
	}
	return fmt.Sprintf("%d ways to them work", len(plan)), err
}

// checkAll sends the requests of all rows, some rows at a time, and prints the table; it returns how many rows are wrong.
func (d *demo) checkAll(ctx context.Context) (int, error) {
	plan := d.services.plan()
	outcomes := make([]outcome, len(plan))
	var done atomic.Int64
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(4)
	for i, c := range plan {
		g.Go(func() error {
			r, err := d.sources.run(ctx, c)
			outcomes[i] = outcome{c, r}
			d.console.status("… requests %d of %d: %s from %s", done.Add(1), len(plan), c.url(), c.from)
			return errors.Join(err, ctx.Err())
		})
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	d.console.line("")
	wrong, err := printTable(d.Out, outcomes, pods)
	d.console.line("")
	return wrong, err
}

// roll sends requests while pods come and go, and prints what became of them; it returns how many failed.
func (d *demo) roll(ctx context.Context) (int, error) {
	d.console.line("%d requests, each on a new connection, from a pod, a node and the client, while pods come and go:", d.Requests)
	begin := time.Now()
	r := &rolling{
		console: d.console, client: d.client, sources: d.sources, flows: d.services.flows(), requests: d.Requests,
	}
	sum, err := r.run(ctx)
	if err == nil {
		err = ctx.Err()
	}
	if err != nil {
		return 0, err
	}
	d.console.line("%d requests in %.0fs, %d failed; %.1f ms in the middle, 99 %% within %.1f ms; %s",
		sum.Requests, time.Since(begin).Seconds(), sum.Failed,
		milliseconds(sum.Latency(0.5)), milliseconds(sum.Latency(0.99)), sum.Spread())
	for _, text := range sum.Failures() {
		d.console.line("✗ %s", text)
	}
	d.console.line("")
	return sum.Failed, nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }
