package echo

import (
	"log/slog"
	"os"
	"os/signal"
	"syscall"
	"time"

	"github.com/spf13/cobra"
)

// Command returns the command "echo", which serves until SIGTERM or SIGINT.
func Command() *cobra.Command {
	cfg := Config{Identity: IdentityFromEnv(), PodIP: os.Getenv("POD_IP")}
	cmd := &cobra.Command{
		Use:   "echo",
		Short: "Serve the test protocols (the image lab/echo)",
		Long: `Serve HTTP, HTTPS, HTTP/2, TCP, UDP and SCTP. Each answer tells the pod and the node that answered and the client
address that was seen; POD_NAME, NODE_NAME and POD_IP of the environment say who this is.

HTTP paths:
  /                          who answered, and the request as it came, as JSON (any other path too)
  /healthz, /readyz          200; PUT /readyz?ready=false makes the latter 503, ready=true undoes it
  /ws                        WebSocket: each message comes back, after one that tells who answers
  /events?interval=&count=   server-sent events, one each interval
  /slow?delay=&bytes=        a body that takes this long
  /bytes?n=                  a body of this size
  /upload (POST, PUT)        size and SHA-256 of what came in, as JSON
  /status/CODE               that status
  /redirect?to=              302 to there
  /page?n=&encoding=         an HTML page of at least this size with links; gzip, deflate, raw-deflate, br or zstd
  /answer?status=&header=&body=&pause=  that answer: headers as NAME:VALUE, bodies with a pause between them
At the ports of HTTP/2 it also serves the health service of gRPC.`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ctx, stop := signal.NotifyContext(cmd.Context(), syscall.SIGTERM, syscall.SIGINT)
			defer stop()
			cfg.Log = slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), nil))
			s, err := Listen(cfg)
			if err != nil {
				return err
			}
			return s.Run(ctx)
		},
	}
	f := cmd.Flags()
	f.StringVar(&cfg.HTTP, "http", ":8080", "address for HTTP/1.1; empty turns it off, here and below")
	f.StringVar(&cfg.HTTPS, "https", ":8443", "address for HTTPS, with a self-signed certificate")
	f.StringVar(&cfg.H2C, "h2c", ":8081", "address for HTTP/2 without TLS")
	f.StringVar(&cfg.TCP, "tcp", ":7000", "address for the TCP echo")
	f.StringVar(&cfg.UDP, "udp", ":7000", "address for the UDP echo")
	f.StringVar(&cfg.SCTP, "sctp", ":7001", "address for the SCTP echo (needs CAP_NET_RAW)")
	f.DurationVar(&cfg.ShutdownDelay, "shutdown-delay", 0, "how long after SIGTERM new connections are still served")
	f.DurationVar(&cfg.DrainTimeout, "drain-timeout", 10*time.Second, "how long open requests may take after that")
	return cmd
}
