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
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/controlplane"
	"varco.dev/lab/internal/load"
)

// pods and pinnedPods are how many pods the Deployments begin with, as in services.yaml.
const (
	pods       = 3
	pinnedPods = 2
)

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
	// Pause is the quiet time before each of the three changes, while requests go on; 0 is a default.
	Pause time.Duration
	// Out is where it is shown; on a terminal some lines change while they are shown.
	Out io.Writer
}

// ErrFailed means that the demo ran to its end and something was not as it must be; what, has been printed.
var ErrFailed = errors.New("the demo failed: see above")

// demo is one run.
type demo struct {
	Config
	console *console
	lab     Lab
	client  kubernetes.Interface
	applier *applier
	scene   *scene
	places  places
	opened  []*nettest.Namespace
}

// Show runs the demo in the lab and returns the addresses that a person may go on with.
func Show(ctx context.Context, lab Lab, cfg Config) (Endpoints, error) {
	d := &demo{Config: cfg, console: newConsole(cfg.Out), lab: lab, scene: &scene{}, places: places{}}
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
		return d.scene.endpoints(), err
	}
	failed, err := d.roll(ctx)
	if err == nil {
		err = d.lookInside(ctx)
	}
	if err == nil && wrong+failed > 0 {
		err = ErrFailed
	}
	return d.scene.endpoints(), err
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

// serveLocalhost adds to the proxy's configuration what shows that NodePorts can be served at localhost too.
func serveLocalhost(manifest []*unstructured.Unstructured) error {
	path := []string{"data", "config.conf"}
	for _, o := range manifest {
		text, found, err := unstructured.NestedString(o.Object, path...)
		if err != nil || !found || o.GetKind() != "ConfigMap" {
			continue
		}
		text = strings.TrimRight(text, "\n") + "\nnodePortAddresses: [primary, localhost]\n"
		return unstructured.SetNestedField(o.Object, text, path...)
	}
	return errors.New("the manifest of kube-proxy has no ConfigMap with a config.conf")
}

func (d *demo) runProxies(ctx context.Context) (string, error) {
	text, err := os.ReadFile(d.Manifest)
	if err != nil {
		return "", fmt.Errorf("read the manifest of kube-proxy: %w", err)
	}
	manifest, err := decode([]byte(variables().Replace(string(text))))
	if err != nil {
		return "", err
	}
	if err := serveLocalhost(manifest); err != nil {
		return "", err
	}
	objects, err := d.applier.apply(ctx, manifest)
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

// deploy applies the Services, gives the load balancers their addresses, and waits for the pods.
func (d *demo) deploy(ctx context.Context) (string, error) {
	objects, err := decode(servicesManifest)
	if err != nil {
		return "", err
	}
	if _, err := d.applier.apply(ctx, objects); err != nil {
		return "", err
	}
	if err := d.readServices(ctx); err != nil {
		return "", err
	}
	if err := awaitPod(ctx, d.client, "visitor"); err != nil {
		return "", err
	}
	if d.scene.pinned, err = awaitPods(ctx, d.client, "pinned", pinnedPods); err != nil {
		return "", err
	}
	if d.scene.echo, err = awaitPods(ctx, d.client, "echo", pods); err != nil {
		return "", err
	}
	return fmt.Sprintf("%d pods, %d Services", pods+pinnedPods+1, len(d.scene.services)), d.openPlaces(ctx)
}

// balancers are the addresses of load balancers, by Service.
func balancers() map[string][]string {
	return map[string][]string{
		"echo-lb": {"198.51.100.10", "2001:db8:51::10"},
		"local":   {"198.51.100.11", "2001:db8:51::11"},
		"guarded": {"198.51.100.12", "2001:db8:51::12"},
	}
}

// readServices writes the load balancers' addresses, and reads those that the API server gave.
func (d *demo) readServices(ctx context.Context) error {
	services := d.client.CoreV1().Services(metav1.NamespaceDefault)
	for name, at := range balancers() {
		status := fmt.Appendf(nil, `{"status":{"loadBalancer":{"ingress":[{"ip":%q},{"ip":%q}]}}}`, at[0], at[1])
		_, err := services.Patch(ctx, name, types.MergePatchType, status, metav1.PatchOptions{}, "status")
		if err != nil {
			return fmt.Errorf("write the addresses of load balancer %s: %w", name, err)
		}
	}
	list, err := services.List(ctx, metav1.ListOptions{})
	if err != nil {
		return fmt.Errorf("read the Services: %w", err)
	}
	d.scene.services = map[string]*corev1.Service{}
	for i, s := range list.Items {
		if len(s.Spec.Selector) > 0 { // the API server's own has none
			d.scene.services[s.Name] = &list.Items[i]
		}
	}
	return nil
}

// openPlaces opens the namespaces of the places; the addresses asked are mostly the first node's, so that requests from the
// last one cross the network where there is more than one.
func (d *demo) openPlaces(ctx context.Context) error {
	nodes, err := d.client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return err
	}
	if len(nodes.Items) == 0 {
		return errors.New("the cluster has no nodes")
	}
	d.scene.nodes = nodes.Items
	visitor, err := d.client.CoreV1().Pods(metav1.NamespaceDefault).Get(ctx, "visitor", metav1.GetOptions{})
	if err != nil {
		return err
	}
	first, last, own := d.scene.first(), d.scene.last(), &d.scene.echo[0]
	for key, p := range map[string]place{
		fromPod:       {name: "default/" + visitor.Name, addrs: podAddrs(visitor)},
		fromNode:      {name: last.Name, addrs: addrsOf(last)},
		fromFirstNode: {name: first.Name, addrs: addrsOf(first)},
		fromClient:    {name: "client", addrs: nettest.ClientNet.Host(nettest.ClientHost).Addrs()},
		fromItself:    {name: "default/" + own.Name, addrs: podAddrs(own)},
	} {
		ns, err := d.lab.Namespace(p.name)
		if err != nil {
			return err
		}
		d.opened = append(d.opened, ns)
		p.dial = ns.DialContext
		p.name = map[string]string{fromPod: "pod", fromItself: "pod of it"}[key]
		if p.name == "" {
			p.name = ns.Name
		}
		d.places[key] = p
	}
	return nil
}

func podAddrs(p *corev1.Pod) []netip.Addr {
	var texts []string
	for _, ip := range p.Status.PodIPs {
		texts = append(texts, ip.IP)
	}
	return parse(texts)
}

// awaitAll waits until every address answers as it must. One that does not, in the time that it has, shows in the table.
func (d *demo) awaitAll(ctx context.Context) (string, error) {
	plan := d.scene.plan()
	var missing, all atomic.Int64
	g := &errgroup.Group{}
	g.SetLimit(16)
	for _, w := range plan {
		for _, c := range w.checks() {
			all.Add(1)
			if w.want.ending == dropped {
				continue // as is all that no node knows of yet
			}
			g.Go(func() error {
				ok, err := d.places.await(ctx, c)
				if !ok {
					missing.Add(1)
				}
				return err
			})
		}
	}
	err := g.Wait()
	if n := missing.Load(); n > 0 {
		return fmt.Sprintf("%d of %d ways to them are not as they must be", n, all.Load()), err
	}
	return fmt.Sprintf("%d ways to them are as they must be", all.Load()), err
}

// checkAll sends the requests of all rows, some rows at a time, and prints the table; it returns how many rows are wrong.
func (d *demo) checkAll(ctx context.Context) (int, error) {
	plan := d.scene.plan()
	outcomes := make([]outcome, len(plan))
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(8)
	for i, w := range plan {
		outcomes[i] = outcome{way: w, reports: make([]*load.Report, len(w.to)), self: d.places[w.from].addrs}
		for j, c := range w.checks() {
			g.Go(func() (err error) {
				outcomes[i].reports[j], err = d.places.run(ctx, c)
				d.console.status("… row %d of %d: %s from %s", i+1, len(plan), c.url(), d.places[c.from].name)
				return errors.Join(err, ctx.Err())
			})
		}
	}
	if err := g.Wait(); err != nil {
		return 0, err
	}
	d.console.line("")
	wrong, err := printTable(d.Out, outcomes, d.places)
	d.console.line("")
	return wrong, err
}

// roll sends requests while pods come and go, and prints what became of them; it returns how many failed.
func (d *demo) roll(ctx context.Context) (int, error) {
	d.console.line("%d requests, each on a new connection, from a pod, a node and the client, while pods come and go:", d.Requests)
	begin := time.Now()
	r := &rolling{
		console: d.console, client: d.client, places: d.places, flows: d.scene.flows(), requests: d.Requests, pause: d.Pause,
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
