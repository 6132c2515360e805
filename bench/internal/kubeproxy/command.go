package kubeproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/lab"
	"varco.dev/bench/internal/objects"
	"varco.dev/bench/internal/quick"
	"varco.dev/bench/internal/world"
)

// Names of the contenders.
const (
	varco = "varco"
	peer  = "kube-proxy"
)

type options struct {
	plan      Plan
	quick     bool
	only      string
	varco     string
	peer      string
	lab       string
	labDir    string
	keep      bool
	varcoArgs []string
	profile   string
	out       string
	from      string
	verbose   bool
}

// Command returns the command kube-proxy.
func Command() *cobra.Command {
	o := &options{plan: fullPlan()}
	cmd := &cobra.Command{
		Use:   "kube-proxy",
		Short: "Measure varco kube-proxy beside upstream's kube-proxy",
		Long: `Measure varco kube-proxy beside upstream's kube-proxy in mode nftables.

It starts a control plane by varco-lab, writes Services and EndpointSlices, and lets
both proxies serve them by turns, each in a network namespace of its own. It needs
root, the nft command (package nftables) for upstream's proxy, and a machine that does
nothing else. What it starts ends with it, and it leaves nothing behind but its report.`,
		Example: `  varco-bench kube-proxy                         everything
  varco-bench kube-proxy --quick                 a smoke run
  varco-bench kube-proxy --only varco --sizes 10000 --measures cold,change --rounds 1`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if o.from != "" {
				return theReport().Again(cmd.OutOrStdout(), o.out, o.from)
			}
			if o.quick {
				if err := quick.Over(cmd.Flags(), &o.plan, quickPlan()); err != nil {
					return err
				}
			}
			return o.run(cmd)
		},
	}
	o.flags(cmd)
	return cmd
}

func (o *options) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&o.quick, "quick", false, "a smoke run of two minutes; other flags still count")
	f.IntSliceVar(&o.plan.Sizes, "sizes", o.plan.Sizes, "numbers of Services, ascending")
	f.IntVar(&o.plan.Rounds, "rounds", o.plan.Rounds, "how often each proxy starts at each size")
	f.IntVar(&o.plan.FewRounds, "few-rounds", o.plan.FewRounds, "the same above 10,000 Services, if it is less")
	f.StringSliceVar(&o.plan.Groups, "measures", groups, "what to measure")
	f.IntVar(&o.plan.Changes, "changes", o.plan.Changes, "changes one at a time in each round")
	f.IntVar(&o.plan.Loaded, "loaded-changes", o.plan.Loaded, "changes beside others in each round")
	f.IntVar(&o.plan.PerSecond, "churn", o.plan.PerSecond, "other changes per second, beside these")
	f.DurationVar(&o.plan.Gap, "gap", o.plan.Gap, "time between two changes; upstream's proxy applies one a second at most")
	f.IntVar(&o.plan.Connects, "connects", o.plan.Connects, "connections each way in each round")
	f.StringVar(&o.only, "only", "", "measure only \"varco\" or only \"kube-proxy\"")
	f.StringVar(&o.varco, "varco", "bin/varco", "the program varco")
	f.StringSliceVar(&o.varcoArgs, "varco-args", nil, "further arguments of varco kube-proxy, such as --profiling")
	f.StringVar(&o.peer, "peer", "bin/kube-proxy", "upstream's kube-proxy; \"make bench-kube-proxy\" builds it")
	f.StringVar(&o.lab, "lab", "bin/varco-lab", "the program varco-lab")
	f.StringVar(&o.labDir, "lab-dir", "", "folder of the lab's state (default: a new one)")
	f.BoolVar(&o.keep, "keep", false, "leave the lab running, for the next run with the same --lab-dir; \"varco-lab down\" ends it")
	f.StringVar(&o.profile, "profile", "", "folder for processor profiles of the changes; the proxies need --profiling")
	f.StringVar(&o.out, "out", "", "folder for the report: kube-proxy.md, .svg and .csv (default: it is only printed)")
	f.StringVar(&o.from, "from", "", "measure nothing, and write the report of a .csv anew")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log every value")
}

// check finds out what is missing before anything is started.
func (o *options) check() error {
	if os.Geteuid() != 0 {
		return errors.New("it needs root: it makes network namespaces")
	}
	if !slices.Contains([]string{"", varco, peer}, o.only) {
		return fmt.Errorf("--only %q: want %s or %s", o.only, varco, peer)
	}
	for _, program := range o.programs() {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("a program is missing (\"make bench-kube-proxy\" builds ours and upstream's; nft is in the package nftables): %w", err)
		}
	}
	return o.plan.check()
}

func (o *options) programs() []string {
	out := []string{o.lab}
	if o.only != peer {
		out = append(out, o.varco)
	}
	if o.only != varco {
		out = append(out, o.peer, "nft")
	}
	return out
}

func (o *options) run(cmd *cobra.Command) (err error) {
	if err := o.check(); err != nil {
		return err
	}
	ctx, cancel := context.WithCancel(cmd.Context())
	defer cancel()
	dir, err := os.MkdirTemp("", "varco-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b, end, err := o.prepare(ctx, dir)
	defer func() { err = errors.Join(err, end()) }()
	if err != nil {
		return err
	}
	b.Log = o.logger(cmd)
	samples, err := b.Run(ctx)
	if err != nil {
		o.out = "" // a part is worth a look, but not the place of a whole report
	}
	if len(samples) > 0 {
		err = errors.Join(err, theReport().Write(cmd.OutOrStdout(), o.out, o.facts(cmd.Context()), samples))
	}
	return err
}

func (o *options) logger(cmd *cobra.Command) *slog.Logger {
	level := slog.LevelInfo
	if o.verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
}

// prepare starts the lab and writes what all sizes have. The function end is never nil.
func (o *options) prepare(ctx context.Context, dir string) (b *Bench, end func() error, err error) {
	l := &lab.Lab{Binary: o.lab, Dir: o.labDir}
	if l.Dir == "" {
		l.Dir = filepath.Join(dir, "lab")
	}
	end = func() error { return nil }
	if !o.keep {
		end = l.Down
	}
	if err := l.Up(ctx); err != nil {
		return nil, end, err
	}
	address, client, err := l.API()
	if err != nil {
		return nil, end, err
	}
	kubeconfig := filepath.Join(dir, "kubeconfig")
	if err := l.WriteKubeconfig(kubeconfig, world.APIServer.String()); err != nil {
		return nil, end, err
	}
	b = &Bench{Plan: o.plan, Contenders: o.contenders(kubeconfig), API: address, Store: objects.NewStore(client), Dir: dir,
		Profile: o.profile}
	if err := b.Store.Begin(ctx); err != nil {
		return nil, end, err
	}
	b.Watch, err = objects.StartWatch(ctx, client)
	return b, end, err
}

// contenders have the same flags; whatever else there is has its default.
func (o *options) contenders(kubeconfig string) (out []contender.Contender) {
	args := []string{"--kubeconfig=" + kubeconfig, "--hostname-override=" + objects.NodeName,
		"--cluster-cidr=" + world.ClusterCIDR.String()}
	if o.only != peer {
		ours := slices.Concat([]string{"kube-proxy"}, args, o.varcoArgs)
		out = append(out, contender.Contender{Name: varco, Path: o.varco, Args: ours})
	}
	if o.only != varco {
		theirs := append(slices.Clone(args), "--proxy-mode=nftables")
		if o.profile != "" {
			theirs = append(theirs, "--profiling")
		}
		out = append(out, contender.Contender{Name: peer, Path: o.peer, Args: theirs})
	}
	return out
}
