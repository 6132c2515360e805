package apiserverlb

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"k8s.io/client-go/util/cert"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/probe"
	"varco.dev/bench/internal/wire"
	"varco.dev/internal/nettest"
)

// backendCount is how many backends there are.
const backendCount = 3

// Ports of the backends, and of the first balancer: others have the next ones.
const (
	backendPort  = 6443
	balancerPort = 16443
)

// Addresses in a place without API servers: of backends, and those that new connections come from.
var (
	backendNet = netip.MustParsePrefix("127.77.0.0/24")
	laneNet    = netip.MustParsePrefix("127.78.0.0/24")
)

// numbered is an address of a network of 256.
func numbered(p netip.Prefix, n int) netip.Addr {
	b := p.Addr().As4()
	b[3] = byte(n)
	return netip.AddrFrom4(b)
}

// place is where balancers are measured: backends, and the network that all are in.
type place struct {
	ns       *nettest.Namespace // nil: that of this process
	dir      string
	backends []netip.AddrPort
	caFile   string
	// balancer is where the first balancer listens.
	balancer netip.AddrPort
	server   *contender.Process // the backends, nil if they are API servers
	trust    *tls.Config        // of an administrator of API servers
}

// networkSettings make room for many short connections on one machine: ports of closed ones serve again after a second.
var networkSettings = map[string]string{
	"net.ipv4.ip_local_port_range": "1024 65535",
	"net.ipv4.tcp_tw_reuse":        "1",
	"net.core.somaxconn":           "4096",
}

// openPlace makes a network and starts backends in it that do next to nothing.
func openPlace(ctx context.Context, dir string) (p *place, err error) {
	p = &place{dir: dir, balancer: netip.AddrPortFrom(numbered(backendNet, 100), balancerPort)}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if p.ns, err = nettest.NewNamespace("balancers"); err != nil {
		return p, err
	}
	for key, value := range networkSettings {
		if err := p.ns.Sysctl(key, value); err != nil {
			return p, err
		}
	}
	return p, p.serve(ctx, backendPort)
}

// serve starts the backends.
func (p *place) serve(ctx context.Context, port uint16) error {
	var names []string
	for i := range backendCount {
		a := netip.AddrPortFrom(numbered(backendNet, 1+i), port)
		p.backends, names = append(p.backends, a), append(names, a.String())
	}
	if err := p.certificate(); err != nil {
		return err
	}
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	ready := filepath.Join(p.dir, "backends.ready")
	if err := os.Remove(ready); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	c := contender.Contender{Name: backendsUse, Path: self, Args: []string{"apiserver-lb", backendsUse, "--ready", ready,
		"--addresses", strings.Join(names, ","), "--cert", p.caFile, "--key", p.keyFile()}}
	if p.server, err = contender.Start(p.ns, c, filepath.Join(p.dir, "backends.log")); err != nil {
		return err
	}
	return await(ctx, p.server.Check, func() error {
		_, err := os.Stat(ready)
		return err
	})
}

func (p *place) keyFile() string { return filepath.Join(p.dir, "backends.key") }

// certificate makes one for the backends, with that of who has signed it behind it.
func (p *place) certificate() error {
	var addresses []net.IP
	for _, b := range p.backends {
		addresses = append(addresses, b.Addr().AsSlice())
	}
	certificate, key, err := cert.GenerateSelfSignedCertKey("backends", addresses, nil)
	if err != nil {
		return fmt.Errorf("make certificate: %w", err)
	}
	p.caFile = filepath.Join(p.dir, "backends.crt")
	return errors.Join(os.WriteFile(p.caFile, certificate, 0o644), os.WriteFile(p.keyFile(), key, 0o600))
}

// close ends everything that the place began.
func (p *place) close() error {
	if p.server != nil {
		p.server.Stop()
	}
	if p.ns != nil {
		return p.ns.Close()
	}
	return nil
}

// do runs fn on a thread in the place: sockets that it opens are there.
func (p *place) do(fn func() error) error {
	if p.ns == nil {
		return fn()
	}
	return p.ns.Do(fn)
}

// startLimit is how long a process may take to start.
const startLimit = 60 * time.Second

// retryPause is between two looks at what starts.
const retryPause = 10 * time.Millisecond

// await returns when there is no error any more, or when check has one.
func await(ctx context.Context, check, fn func() error) error {
	for deadline := time.Now().Add(startLimit); ; {
		err := fn()
		if err == nil {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("not in %s: %w", startLimit, err)
		}
		if err := errors.Join(check(), context.Cause(ctx)); err != nil {
			return err
		}
		probe.Sleep(retryPause)
	}
}

// backendsUse is the name of the command of the backends.
const backendsUse = "backends"

// backendsCommand is what the balancers lead to. The bench starts it by itself.
func backendsCommand() *cobra.Command {
	s := &wire.Server{}
	var addresses []string
	var certificate, key string
	cmd := &cobra.Command{
		Use:    backendsUse,
		Short:  "The backends of the balancers, which the bench starts by itself",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) (err error) {
			for _, text := range addresses {
				a, err := netip.ParseAddrPort(text)
				if err != nil {
					return err
				}
				s.Addresses = append(s.Addresses, a)
			}
			if s.Certificate, err = tls.LoadX509KeyPair(certificate, key); err != nil {
				return fmt.Errorf("read certificate: %w", err)
			}
			s.Log = logger(cmd, false)
			return s.Run(cmd.Context())
		},
	}
	cmd.Flags().StringSliceVar(&addresses, "addresses", nil, "addresses of the backends")
	cmd.Flags().StringVar(&certificate, "cert", "", "file of their certificate")
	cmd.Flags().StringVar(&key, "key", "", "file of its key")
	cmd.Flags().StringVar(&s.Ready, "ready", "", "file to make when all of them listen")
	return cmd
}

func logger(cmd *cobra.Command, verbose bool) *slog.Logger {
	level := slog.LevelInfo
	if verbose {
		level = slog.LevelDebug
	}
	return slog.New(slog.NewTextHandler(cmd.ErrOrStderr(), &slog.HandlerOptions{Level: level}))
}
