package apiserverproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"os/exec"
	"slices"

	"github.com/spf13/cobra"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/publish"
	"varco.dev/bench/internal/quick"
	"varco.dev/bench/internal/report"
	"varco.dev/bench/internal/targets"
)

// Names of the contenders.
const (
	varco  = "varco"
	inside = "varco inside"
	peer   = "kube-apiserver"
)

// frontMetrics is where a front serves its metrics by default, and frontProfiles where one that is built for it serves profiles.
const (
	frontMetrics  = "http://127.0.0.1:10262/metrics"
	frontProfiles = "http://127.0.0.1:10262/debug/pprof/"
)

type options struct {
	plan      Plan
	quick     bool
	only      []string
	varco     string
	varcoArgs []string
	lab       string
	profile   string
	out       string
	from      string
	verbose   bool

	kubeconfig, pki string // of the control plane that runs
}

// Command returns the command apiserver-proxy.
func Command() *cobra.Command {
	o := &options{plan: fullPlan()}
	cmd := &cobra.Command{
		Use:   "apiserver-proxy",
		Short: "Measure varco apiserver-proxy beside kube-apiserver's own proxy subresources",
		Long: `Measure varco apiserver-proxy beside kube-apiserver's own proxy subresources.

It starts a control plane by varco-lab, and in its network namespace ten targets, the
front and the clients. All contenders lead to the same targets, and take turns. It
needs root and a machine that does nothing else. What it starts ends with it, and it
leaves nothing behind but its report.`,
		Example: `  varco-bench apiserver-proxy                    everything
  varco-bench apiserver-proxy --quick            a smoke run
  varco-bench apiserver-proxy --only varco --measures get --connections 64 --rounds 3`,
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
	cmd.AddCommand(targetsCommand())
	return cmd
}

func (o *options) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&o.quick, "quick", false, "a smoke run of two minutes; other flags still count")
	f.IntVar(&o.plan.Rounds, "rounds", o.plan.Rounds, "how often each contender is measured, each time in a new control plane")
	f.StringSliceVar(&o.plan.Groups, "measures", groups, "what to measure")
	f.IntSliceVar(&o.plan.Connections, "connections", o.plan.Connections, "numbers of connections for small requests, ascending")
	f.DurationVar(&o.plan.GetTime, "get-time", o.plan.GetTime, "how long each of these is measured")
	f.DurationVar(&o.plan.Warm, "warm", o.plan.Warm, "how long small requests go on before they are counted")
	f.IntSliceVar(&o.plan.Loads, "loads", o.plan.Loads, "paced requests, in percent of what kube-apiserver answers at most, ascending")
	f.DurationVar(&o.plan.PaceTime, "pace-time", o.plan.PaceTime, "how long each of these is measured")
	f.IntVar(&o.plan.Sockets, "sockets", o.plan.Sockets, "idle WebSockets at a time")
	f.IntVar(&o.plan.PageMiB, "page-mib", o.plan.PageMiB, "length of a large HTML page")
	f.DurationVar(&o.plan.PageTime, "page-time", o.plan.PageTime, "how long pages of a MiB go before it")
	f.DurationVar(&o.plan.Gap, "gap", o.plan.Gap, "time between the parts of a page that comes slowly")
	f.IntSliceVar(&o.plan.Flows, "flows", o.plan.Flows, "steady flows in Mbit/s, ascending")
	f.DurationVar(&o.plan.FlowTime, "flow-time", o.plan.FlowTime, "how long each of these flows")
	f.DurationVar(&o.plan.Settle, "settle", o.plan.Settle, "time between the start of processes, or of WebSockets, and what is measured")
	f.StringSliceVar(&o.only, "only", []string{varco, peer, inside}, "which contenders to measure")
	f.StringVar(&o.varco, "varco", "bin/varco", "the program varco")
	f.StringSliceVar(&o.varcoArgs, "varco-args", nil, "further arguments of varco apiserver-proxy front")
	f.StringVar(&o.lab, "lab", "bin/varco-lab", "the program varco-lab, which has kube-apiserver too")
	f.StringVar(&o.profile, "profile", "", "folder for profiles of a front that serves them beside its metrics")
	f.StringVar(&o.out, "out", "", "folder for the report: apiserver-proxy.md, .svg and .csv (default: it is only printed)")
	f.StringVar(&o.from, "from", "", "measure nothing, and write the report of a .csv anew")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log every value")
}

// check finds out what is missing before anything is started.
func (o *options) check() error {
	if os.Geteuid() != 0 {
		return errors.New("it needs root: it works in network namespaces")
	}
	for _, name := range o.only {
		if !slices.Contains([]string{varco, peer, inside}, name) {
			return fmt.Errorf("--only %q: want some of %s, %s, %q", name, varco, peer, inside)
		}
	}
	programs := []string{o.lab}
	if slices.Contains(o.only, varco) {
		programs = append(programs, o.varco)
	}
	for _, program := range programs {
		if _, err := exec.LookPath(program); err != nil {
			return fmt.Errorf("a program is missing (\"make build\" builds both): %w", err)
		}
	}
	return o.plan.check()
}

// entrants are those that were asked for, the one with the bars first.
func (o *options) entrants() (out []entrant) {
	front := func(at netip.AddrPort) contender.Contender {
		return contender.Contender{Name: varco, Path: o.varco, Args: o.frontArgs(at)}
	}
	for _, e := range []entrant{{name: varco, front: front, metrics: frontMetrics}, {name: peer, metrics: "/metrics"}, {name: inside, inside: true, metrics: "/metrics"}} {
		if slices.Contains(o.only, e.name) {
			out = append(out, e)
		}
	}
	return out
}

func (o *options) run(cmd *cobra.Command) error {
	if err := o.check(); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "varco-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	b := &Bench{plan: o.plan, entrants: o.entrants(), open: o.controlPlane, dir: dir, profile: o.profile, log: logger(cmd, o.verbose)}
	samples, err := b.run(cmd.Context())
	if err != nil {
		o.out = "" // a part is worth a look, but not the place of a whole report
	}
	if len(samples) > 0 {
		err = errors.Join(err, theReport().Write(cmd.OutOrStdout(), o.out, o.facts(cmd.Context()), samples))
	}
	return err
}

func logger(cmd *cobra.Command, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
}

// facts are what the reader must know of the machine and the programs.
func (o *options) facts(ctx context.Context) []report.Fact {
	out := append(publish.Machine(),
		report.Fact{Name: varco, Value: publish.Says(ctx, o.varco, "--version")},
		report.Fact{Name: peer, Value: publish.Says(ctx, o.lab, "kube-apiserver", "--version")})
	return append(out, publish.Command())
}

// targetsCommand is what the contenders lead to. The bench starts it by itself.
func targetsCommand() *cobra.Command {
	s := &targets.Server{}
	var addresses []string
	cmd := &cobra.Command{
		Use:    targetsUse,
		Short:  "The targets behind the contenders, which the bench starts by itself",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			for _, text := range addresses {
				a, err := netip.ParseAddr(text)
				if err != nil {
					return err
				}
				s.Addresses = append(s.Addresses, a)
			}
			s.Log = logger(cmd, false)
			return s.Run(cmd.Context())
		},
	}
	cmd.Flags().StringSliceVar(&addresses, "addresses", nil, "addresses of the targets")
	cmd.Flags().Uint16Var(&s.SmallPort, "small-port", targetSmall, "port of small answers")
	cmd.Flags().Uint16Var(&s.PagePort, "page-port", targetPage, "port of everything else")
	cmd.Flags().StringVar(&s.Ready, "ready", "", "file to make when all of them listen")
	return cmd
}
