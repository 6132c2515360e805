package apiserverlb

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"os/exec"
	"slices"
	"strings"
	"syscall"

	"github.com/spf13/cobra"

	"varco.dev/bench/internal/publish"
	"varco.dev/bench/internal/quick"
	"varco.dev/bench/internal/report"
)

type options struct {
	plan      Plan
	quick     bool
	only      []string
	varco     string
	varcoArgs []string
	lab       string
	out       string
	from      string
	verbose   bool
}

// Command returns the command apiserver-lb.
func Command() *cobra.Command {
	o := &options{plan: fullPlan()}
	cmd := &cobra.Command{
		Use:   "apiserver-lb",
		Short: "Measure varco apiserver-lb beside HAProxy and nginx",
		Long: `Measure varco apiserver-lb beside HAProxy and nginx.

Speed is measured in a network namespace of its own, with backends that do next to
nothing; the balancers take turns. For faults it starts a control plane of three API
servers by varco-lab, with all balancers side by side in front of it. It needs root, a
machine that does nothing else, and Debian's packages haproxy, nginx-light and
libnginx-mod-stream: a peer that is not installed is left out. What it starts ends with
it, and it leaves nothing behind but its report.`,
		Example: `  varco-bench apiserver-lb                       everything
  varco-bench apiserver-lb --quick               a smoke run
  varco-bench apiserver-lb --only varco,haproxy --measures get,bulk`,
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
	cmd.AddCommand(backendsCommand())
	return cmd
}

func (o *options) flags(cmd *cobra.Command) {
	f := cmd.Flags()
	f.SortFlags = false
	f.BoolVar(&o.quick, "quick", false, "a smoke run of two minutes; other flags still count")
	f.IntVar(&o.plan.Rounds, "rounds", o.plan.Rounds, "how often each contender is measured, each time in new processes")
	f.IntVar(&o.plan.Passes, "passes", o.plan.Passes, "how often speed is measured in each round")
	f.StringSliceVar(&o.plan.Groups, "measures", groups, "what to measure")
	f.IntSliceVar(&o.plan.Connections, "connections", o.plan.Connections, "numbers of kept connections for small requests, ascending")
	f.DurationVar(&o.plan.Time, "time", o.plan.Time, "how long requests and new connections are counted")
	f.DurationVar(&o.plan.Warm, "warm", o.plan.Warm, "how long they go on before they are counted")
	f.IntSliceVar(&o.plan.Bulks, "bulk-connections", o.plan.Bulks, "numbers of connections for bulk, ascending")
	f.IntVar(&o.plan.BulkMiB, "bulk-mib", o.plan.BulkMiB, "MiB that go through all of them together")
	f.IntVar(&o.plan.Idle, "idle", o.plan.Idle, "idle connections at a time")
	f.DurationVar(&o.plan.Settle, "settle", o.plan.Settle, "time between the start of processes, or of idle connections, and what is measured")
	f.IntVar(&o.plan.Watches, "watches", o.plan.Watches, "watches through each balancer while API servers fail")
	f.IntVar(&o.plan.Requests, "requests", o.plan.Requests, "requests a second through each balancer while API servers restart")
	f.IntVar(&o.plan.Probes, "probes", o.plan.Probes, "new connections a second through each balancer while one fails")
	f.DurationVar(&o.plan.FaultTime, "fault-time", o.plan.FaultTime, "how long an API server hangs or is cut off")
	f.DurationVar(&o.plan.RedTime, "red-time", o.plan.RedTime, "how long etcd hangs")
	f.DurationVar(&o.plan.Delay, "delay", o.plan.Delay, "how long an API server that ends serves on, not ready")
	f.DurationVar(&o.plan.SpreadLeast, "spread-least", o.plan.SpreadLeast, "how long connections are looked at after the restarts, at least")
	f.DurationVar(&o.plan.SpreadMost, "spread-most", o.plan.SpreadMost, "the same, at most")
	f.StringSliceVar(&o.only, "only", contenders, "which contenders to measure")
	f.StringVar(&o.varco, "varco", "bin/varco", "the program varco")
	f.StringSliceVar(&o.varcoArgs, "varco-args", nil, "further arguments of varco apiserver-lb")
	f.StringVar(&o.lab, "lab", "bin/varco-lab", "the program varco-lab, which has kube-apiserver too")
	f.StringVar(&o.out, "out", "", "folder for the report: apiserver-lb.md, .svg and .csv (default: it is only printed)")
	f.StringVar(&o.from, "from", "", "measure nothing, and write the report of a .csv anew")
	f.BoolVarP(&o.verbose, "verbose", "v", false, "log every value")
}

// check finds out what is missing before anything is started.
func (o *options) check() error {
	if os.Geteuid() != 0 {
		return errors.New("it needs root: it works in network namespaces")
	}
	for _, name := range o.only {
		if !slices.Contains(contenders, name) {
			return fmt.Errorf("--only %q: want some of %s", name, strings.Join(contenders, "; "))
		}
	}
	programs := []string{}
	if len(o.plan.only(faults)) > 0 {
		programs = append(programs, o.lab)
	}
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

// entrants are those that were asked for and are there, the one with the bars first.
func (o *options) entrants(log *slog.Logger) (out []string) {
	for _, name := range contenders {
		if !slices.Contains(o.only, name) {
			continue
		}
		if err := missing(name); err != nil {
			log.Warn("a contender is left out", "why", err)
			continue
		}
		out = append(out, name)
	}
	return out
}

// allowFiles lets this process, and what it starts, have so many files open.
func allowFiles(files uint64) error {
	var now syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		return fmt.Errorf("read limit of open files: %w", err)
	}
	now.Cur, now.Max = max(now.Max, files), max(now.Max, files)
	if err := syscall.Setrlimit(syscall.RLIMIT_NOFILE, &now); err != nil {
		return fmt.Errorf("allow %d open files (less --idle connections want less): %w", files, err)
	}
	return nil
}

func (o *options) run(cmd *cobra.Command) error {
	if err := o.check(); err != nil {
		return err
	}
	if err := allowFiles(o.plan.files()); err != nil {
		return err
	}
	dir, err := os.MkdirTemp("", "varco-bench-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(dir)
	log := logger(cmd, o.verbose)
	b := &Bench{plan: o.plan, names: o.entrants(log), program: o.program, open: openPlace, openCluster: o.openCluster, dir: dir, log: log}
	samples, err := b.run(cmd.Context())
	if err != nil {
		o.out = "" // a part is worth a look, but not the place of a whole report
	}
	if len(samples) > 0 {
		err = errors.Join(err, theReport().Write(cmd.OutOrStdout(), o.out, o.facts(cmd.Context()), samples))
	}
	return err
}

// facts are what the reader must know of the machine and the programs.
func (o *options) facts(ctx context.Context) []report.Fact {
	out := append(publish.Machine(),
		report.Fact{Name: varco, Value: publish.Says(ctx, o.varco, "--version")},
		report.Fact{Name: haproxy, Value: peerVersion(ctx, haproxy, haproxyProgram, "-v")},
		report.Fact{Name: nginx, Value: peerVersion(ctx, nginx, nginxProgram, "-v")},
		report.Fact{Name: "API servers", Value: publish.Says(ctx, o.lab, "kube-apiserver", "--version")})
	return append(out, publish.Command())
}

// peerVersion is what a peer says of itself, or why it is not there. nginx tells it as an error.
func peerVersion(ctx context.Context, name, program, flag string) string {
	if err := missing(name); err != nil {
		return "left out: " + err.Error()
	}
	b, err := exec.CommandContext(ctx, program, flag).CombinedOutput()
	if err != nil {
		return "unknown"
	}
	line, _, _ := strings.Cut(string(b), "\n")
	return line
}
