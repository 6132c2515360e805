package demo

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"

	"github.com/spf13/cobra"
	"varco.dev/lab/internal/cluster"
)

// errInterrupted ends a demo that was not at its end yet.
var errInterrupted = errors.New("interrupted")

// frontPods are how many pods requests through varco apiserver-proxy are spread over.
const frontPods = 5

// options are the flags of the command.
type options struct {
	cluster  cluster.Config
	varco    string
	manifest string
	account  string
	requests int
	once     bool
}

// Command returns the command "demo".
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "demo --varco PATH",
		Short: "Show Services at work, from nothing to 10,000 requests through a scaling",
		Long: `Demo brings a lab up, runs varco kube-proxy on each of its nodes, deploys a test server with Services of all kinds,
sends requests to them from a pod, a node and a client outside, and prints what came of them. Then it scales the
Deployment up and down and deletes a pod while requests go on, shows how the client reaches nodes, pods and Services
through varco apiserver-proxy, in front of the API server and in its process, kills one and pauses another of three API
servers behind varco apiserver-lb while clients go on, and starts varco kubectl-proxy on this machine, as a user would. At the end it stays up, for you to try things, until Ctrl-C; then nothing of it is left. It needs root and changes
nothing of the machine outside its own namespaces.`,
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP)
			defer stop()
			return o.run(ctx, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.varco, "varco", "", "the program varco (required)")
	f.StringVar(&o.manifest, "manifest", "deploy/kube-proxy.yaml", "how varco kube-proxy is run on the nodes")
	f.StringVar(&o.account, "apiserver-proxy-manifest", "deploy/apiserver-proxy-rbac.yaml", "the service account of varco apiserver-proxy")
	f.StringVar(&o.cluster.Dir, "dir", cluster.DefaultDir, "folder of the lab's state")
	f.IntVar(&o.cluster.Nodes, "nodes", cluster.DefaultNodes, "number of nodes")
	f.IntVar(&o.cluster.APIServers, "apiservers", 1, "number of API servers")
	f.IntVar(&o.requests, "requests", 10000, "how many requests to send while pods come and go")
	f.BoolVar(&o.once, "once", false, "take the lab down at the end instead of staying up")
	_ = cmd.MarkFlagRequired("varco") // the flag exists
	return cmd
}

func (o options) check() error {
	if os.Geteuid() != 0 {
		return cluster.ErrNotRoot
	}
	if o.cluster.Nodes < 1 {
		return errors.New("the demo wants one node at least: --nodes")
	}
	if o.requests < 1 {
		return errors.New("the demo wants one request at least: --requests")
	}
	if _, err := os.Stat(o.manifest); err != nil {
		return fmt.Errorf("find the manifest of kube-proxy (--manifest): %w", err)
	}
	if _, err := os.Stat(o.account); err != nil {
		return fmt.Errorf("find the manifest of apiserver-proxy (--apiserver-proxy-manifest): %w", err)
	}
	return nil
}

func (o options) run(ctx context.Context, out io.Writer) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	o.cluster.APIServerProxy = cluster.ProxyOfAll
	o.cluster.Images = append(o.cluster.Images, "varco="+o.varco)
	c := newConsole(out)
	if err := o.bringUp(ctx, c); err != nil {
		return notInterrupted(ctx, err)
	}
	defer func() {
		// ctx may be over; taking down must not be.
		err = errors.Join(err, c.step("down", func() (string, error) {
			_, err := cluster.Down(context.WithoutCancel(ctx), o.cluster.Dir)
			return "nothing is left of the lab", err
		}))
	}()
	lab, err := cluster.Open(o.cluster.Dir)
	if err != nil {
		return err
	}
	next, err := Show(ctx, lab, o.config(out))
	if err != nil && ctx.Err() == nil {
		o.showLogs(c, errors.Is(err, ErrFailed) && !o.once)
	}
	if err != nil && !errors.Is(err, ErrFailed) {
		return notInterrupted(ctx, err)
	}
	notInFront := ShowFront(ctx, lab, FrontConfig{
		Varco: o.varco, Manifest: o.account, PKI: filepath.Join(o.cluster.Dir, "pki"), Host: true, Pods: frontPods, Out: out,
	})
	if notInFront != nil && !errors.Is(notInFront, ErrFailed) {
		return notInterrupted(ctx, notInFront)
	}
	kubeconfig := filepath.Join(o.cluster.Dir, "kubeconfig")
	notBalanced := o.showBalancer(ctx, c, out)
	if notBalanced != nil && !errors.Is(notBalanced, ErrFailed) {
		return notInterrupted(ctx, notBalanced)
	}
	gateway, notShown := ShowGateway(ctx, GatewayConfig{Varco: o.varco, Kubeconfig: kubeconfig, Out: out})
	if gateway == nil {
		return notInterrupted(ctx, notShown)
	}
	defer gateway.Stop()
	if !o.once {
		verb := func(name string) string { return cluster.Verb(o.cluster.Dir, name) }
		next.Page = gateway.Page
		next.PrintNext(out, verb, kubeconfig)
		<-ctx.Done()
	}
	return cmp.Or(err, notInFront, notBalanced, notShown)
}

// balancedServers are how many API servers there are behind varco apiserver-lb, in a lab of their own.
const balancedServers = 3

// showBalancer brings a second lab up, which has no nodes, and takes it down again.
func (o options) showBalancer(ctx context.Context, c *console, out io.Writer) (err error) {
	conf := cluster.Config{Dir: o.cluster.Dir + "-apiserver-lb", APIServers: balancedServers, APIServerLB: o.varco}
	err = c.step("apiserver-lb", func() (string, error) {
		return fmt.Sprintf("a lab of %d API servers behind varco apiserver-lb", balancedServers), cluster.Up(ctx, conf, nil)
	})
	if err != nil {
		return err
	}
	defer func() {
		_, down := cluster.Down(context.WithoutCancel(ctx), conf.Dir)
		err = errors.Join(err, down)
	}()
	lab, err := cluster.Open(conf.Dir)
	if err != nil {
		return err
	}
	err = ShowBalancer(ctx, lab, out)
	if err != nil && ctx.Err() == nil {
		cluster.WriteLogs(c.out, conf.Dir)
	}
	return err
}

// showLogs tells of the logs of a demo that failed: where they are in a lab that stays up, and their ends if they are
// about to go with it.
func (o options) showLogs(c *console, stays bool) {
	if !stays {
		cluster.WriteLogs(c.out, o.cluster.Dir)
		return
	}
	c.line("The logs are in %s/log, those of pods in %[1]s/nodes/NODE/log.", o.cluster.Dir)
}

// notInterrupted makes one plain error of whatever an interrupt broke off.
func notInterrupted(ctx context.Context, err error) error {
	if ctx.Err() != nil {
		return errInterrupted
	}
	return err
}

func (o options) config(out io.Writer) Config {
	return Config{Manifest: o.manifest, Requests: o.requests, Out: out}
}

// bringUp shows the lab's own steps.
func (o options) bringUp(ctx context.Context, c *console) error {
	return cluster.NewPrinter(c.out, c.live).Up(ctx, o.cluster)
}
