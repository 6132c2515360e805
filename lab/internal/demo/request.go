package demo

import (
	"context"
	"errors"
	"fmt"
	"io"
	"time"

	"github.com/spf13/cobra"
	"varco.dev/lab/internal/cluster"
	"varco.dev/lab/internal/load"
)

// RequestCommand returns the command "request", which sends requests from any place of a lab that is up.
func RequestCommand() *cobra.Command {
	var dir, from string
	cfg := load.Config{}
	cmd := &cobra.Command{
		Use:   "request URL [--from client|NODE|POD]",
		Short: "Send requests from a place in the lab",
		Long: `Request sends one request and prints the answer, or with -n many and prints what came of them.

The URL's scheme is http, https, h2c, tcp, udp or sctp, and its host is an address. The place is client (outside the
cluster), a node, or a pod as NAMESPACE/POD or, in the namespace default, POD.`,
		Example: `  varco-lab request http://198.51.100.10/
  varco-lab request tcp://10.96.0.20:7000 --from node-1 -n 100
  varco-lab request http://[fd00:96::20]/ --from visitor -n 10000 -c 16`,
		Args:         cobra.ExactArgs(1),
		SilenceUsage: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			if cfg.Requests < 1 || cfg.Concurrency < 1 {
				return errors.New("want one request (-n) and one at a time (-c) at least")
			}
			lab, err := cluster.Open(dir)
			if err != nil {
				return err
			}
			ns, err := lab.Namespace(from)
			if err != nil {
				return err
			}
			defer ns.Close()
			cfg.URL, cfg.Dial = args[0], ns.DialContext
			if cfg.Requests == 1 {
				return load.Show(cmd.Context(), cfg, cmd.OutOrStdout())
			}
			return sendMany(cmd.Context(), cfg, cmd.OutOrStdout())
		},
	}
	f := cmd.Flags()
	f.StringVar(&dir, "dir", cluster.DefaultDir, "folder of the lab's state")
	f.StringVar(&from, "from", "client", "where to send from")
	f.IntVarP(&cfg.Requests, "requests", "n", 1, "how many requests to send")
	f.IntVarP(&cfg.Concurrency, "concurrency", "c", 1, "how many at a time")
	f.Float64Var(&cfg.Rate, "rate", 0, "how many a second, 0 for as many as there can be")
	f.DurationVar(&cfg.Timeout, "timeout", 5*time.Second, "how long to wait for each answer")
	f.BoolVar(&cfg.KeepAlive, "keep-alive", false, "use a connection again instead of opening one for each request")
	return cmd
}

func sendMany(ctx context.Context, cfg load.Config, out io.Writer) error {
	begin := time.Now()
	r, err := load.Run(ctx, cfg)
	if err != nil {
		return err
	}
	fmt.Fprintf(out, "%d requests in %.1fs, %d failed; %.1f ms in the middle, 99 %% within %.1f ms\n", r.Requests,
		time.Since(begin).Seconds(), r.Failed, milliseconds(r.Latency(0.5)), milliseconds(r.Latency(0.99)))
	for _, text := range r.PodLines() {
		fmt.Fprintln(out, " ", text)
	}
	for _, text := range r.Failures() {
		fmt.Fprintln(out, "  ✗", text)
	}
	if r.Failed > 0 {
		return fmt.Errorf("%d of %d requests failed", r.Failed, r.Requests)
	}
	return nil
}
