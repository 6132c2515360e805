package kubectlproxy

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/fakeapi"
	"varco.dev/bench/internal/publish"
	"varco.dev/bench/internal/quick"
	"varco.dev/bench/internal/report"
)

// Names of the contenders.
const (
	varco = "varco"
	peer  = "kubectl"
)

type options struct {
	plan      Plan
	quick     bool
	only      string
	varco     string
	peer      string
	varcoArgs []string
	out       string
	from      string
	verbose   bool
}

// Command returns the command kubectl-proxy.
func Command() *cobra.Command {
	o := &options{plan: fullPlan()}
	cmd := &cobra.Command{
		Use:   "kubectl-proxy",
		Short: "Measure varco kubectl-proxy beside kubectl proxy",
		Long: `Measure varco kubectl-proxy beside kubectl proxy.

Both are in front of the same server, which answers at once by TLS and is a process of
its own, and take turns. It needs no root and no cluster, but a machine that does
nothing else. What it starts ends with it, and it leaves nothing behind but its report.`,
		Example: `  varco-bench kubectl-proxy                      everything
  varco-bench kubectl-proxy --quick              a smoke run
  varco-bench kubectl-proxy --only varco --measures get --connections 32 --rounds 3`,
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
	cmd.AddCommand(serverCommand())
	return cmd
}

func (o *options) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&o.quick, "quick", false, "a smoke run of half a minute; other flags still count")
	f.IntVar(&o.plan.Rounds, "rounds", o.plan.Rounds, "how often each proxy is measured")
	f.StringSliceVar(&o.plan.Groups, "measures", groups, "what to measure")
	f.IntSliceVar(&o.plan.Connections, "connections", o.plan.Connections, "numbers of connections for small requests, ascending")
	f.DurationVar(&o.plan.GetTime, "get-time", o.plan.GetTime, "how long each of these is measured")
	f.DurationVar(&o.plan.Warm, "warm", o.plan.Warm, "how long requests and events go on before they are counted")
	f.IntVar(&o.plan.Watches, "watches", o.plan.Watches, "watches at a time")
	f.DurationVar(&o.plan.WatchTime, "watch-time", o.plan.WatchTime, "how long their events are counted")
	f.IntVar(&o.plan.BodyMiB, "body-mib", o.plan.BodyMiB, "length of a large body")
	f.IntVar(&o.plan.Starts, "starts", o.plan.Starts, "starts to the first answer in each round")
	f.StringVar(&o.only, "only", "", "measure only \"varco\" or only \"kubectl\"")
	f.StringVar(&o.varco, "varco", "bin/varco", "the program varco")
	f.StringSliceVar(&o.varcoArgs, "varco-args", nil, "further arguments of varco kubectl-proxy")
	f.StringVar(&o.peer, "peer", "bin/kubectl", "the program kubectl; \"make bench-kubectl-proxy\" builds it")
	f.StringVar(&o.out, "out", "", "folder for the report: kubectl-proxy.md, .svg and .csv (default: it is only printed)")
	f.StringVar(&o.from, "from", "", "measure nothing, and write the report of a .csv anew")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log every value")
}

// check finds out what is missing before anything is started.
func (o *options) check() error {
	if !slices.Contains([]string{"", varco, peer}, o.only) {
		return fmt.Errorf("--only %q: want %s or %s", o.only, varco, peer)
	}
	for _, c := range o.contenders() {
		if _, err := exec.LookPath(c.Path); err != nil {
			return fmt.Errorf("a program is missing (\"make bench-kubectl-proxy\" builds both): %w", err)
		}
	}
	return o.plan.check()
}

// contenders without the arguments that all of them get.
func (o *options) contenders() (out []contender.Contender) {
	if o.only != peer {
		ours := append([]string{"kubectl-proxy"}, o.varcoArgs...)
		out = append(out, contender.Contender{Name: varco, Path: o.varco, Args: ours})
	}
	if o.only != varco {
		out = append(out, contender.Contender{Name: peer, Path: o.peer, Args: []string{"proxy"}})
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
	server, err := startServer(cmd.Context(), dir)
	if err != nil {
		return err
	}
	defer server.process.Stop()
	b := &Bench{Plan: o.plan, Contenders: o.contenders(), Dir: dir, Log: logger(cmd, o.verbose), server: server}
	samples, err := b.Run(cmd.Context())
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
	out := publish.Machine()
	if o.only != peer {
		out = append(out, report.Fact{Name: varco, Value: publish.Says(ctx, o.varco, "--version")})
	}
	if o.only != varco {
		says := publish.Says(ctx, o.peer, "version", "--client")
		out = append(out, report.Fact{Name: peer, Value: strings.TrimPrefix(says, "Client Version: ")})
	}
	return append(out, publish.Command())
}

// serverCommand is the server in front of which the proxies are measured. The bench starts it by itself.
func serverCommand() *cobra.Command {
	s := &fakeapi.Server{EventsPerSecond: eventsPerSecond}
	cmd := &cobra.Command{
		Use:    serverUse,
		Short:  "The server behind the proxies, which the bench starts by itself",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			s.Log = logger(cmd, false)
			return s.Run(cmd.Context())
		},
	}
	cmd.Flags().StringVar(&s.Dir, "dir", "", "folder for the files by which clients find the server")
	return cmd
}
