package upstream

import (
	"context"
	"errors"
	"fmt"
	"net/url"
	"time"

	"github.com/spf13/cobra"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/server/v3/embed"
)

// etcdFlags are the flags of the etcd command; their names are those of the etcd binary.
type etcdFlags struct {
	dataDir   string
	listen    []string
	advertise []string
	tls       transport.TLSInfo
}

func etcdCommand() *cobra.Command {
	var f etcdFlags
	cmd := &cobra.Command{
		Use:    "etcd",
		Short:  "Run one etcd member that does not wait for the disk",
		Hidden: true,
		Args:   cobra.NoArgs,
		RunE:   func(cmd *cobra.Command, _ []string) error { return f.run(cmd.Context()) },
	}
	fs := cmd.Flags()
	fs.StringVar(&f.dataDir, "data-dir", "", "folder of the data")
	fs.StringSliceVar(&f.listen, "listen-client-urls", nil, "addresses to serve clients on")
	fs.StringSliceVar(&f.advertise, "advertise-client-urls", nil, "addresses that clients are told")
	fs.StringVar(&f.tls.CertFile, "cert-file", "", "serving certificate")
	fs.StringVar(&f.tls.KeyFile, "key-file", "", "key of the serving certificate")
	fs.StringVar(&f.tls.TrustedCAFile, "trusted-ca-file", "", "authority of the clients' certificates")
	return cmd
}

// run serves until ctx ends. The data does not survive a crash of the machine: nothing is synced to the disk.
func (f *etcdFlags) run(ctx context.Context) error {
	cfg, err := f.config()
	if err != nil {
		return err
	}
	etcd, err := embed.StartEtcd(cfg)
	if err != nil {
		return fmt.Errorf("start etcd: %w", err)
	}
	defer etcd.Close()
	select {
	case <-ctx.Done():
		return nil
	case <-etcd.Server.StopNotify():
		return errors.New("etcd stopped by itself")
	case err := <-etcd.Err():
		return fmt.Errorf("serve etcd: %w", err)
	}
}

func (f *etcdFlags) config() (*embed.Config, error) {
	listen, err := parseURLs(f.listen)
	if err != nil {
		return nil, err
	}
	advertise, err := parseURLs(f.advertise)
	if err != nil {
		return nil, err
	}
	cfg := embed.NewConfig()
	cfg.Name = "lab"
	cfg.Dir = f.dataDir
	cfg.UnsafeNoFsync = true
	cfg.ListenClientUrls, cfg.AdvertiseClientUrls = listen, advertise
	// The peer address must be given, though a cluster of one member has no peers: port 0 keeps it out of the way.
	peer, err := url.Parse("http://127.0.0.1:0")
	if err != nil {
		return nil, err
	}
	cfg.ListenPeerUrls, cfg.AdvertisePeerUrls = []url.URL{*peer}, []url.URL{*peer}
	cfg.InitialCluster = cfg.InitialClusterFromName(cfg.Name)
	cfg.ClientTLSInfo = f.tls
	cfg.ClientTLSInfo.ClientCertAuth = true
	cfg.LogLevel = "warn"
	cfg.Logger = "zap"
	cfg.LogOutputs = []string{"stderr"}
	// One member elects itself after this time, which is the first wait of every start.
	cfg.TickMs, cfg.ElectionMs = 20, 200
	cfg.WarningApplyDuration = time.Second
	return cfg, nil
}

func parseURLs(texts []string) ([]url.URL, error) {
	urls := make([]url.URL, 0, len(texts))
	for _, text := range texts {
		u, err := url.Parse(text)
		if err != nil {
			return nil, fmt.Errorf("parse address of etcd: %w", err)
		}
		urls = append(urls, *u)
	}
	return urls, nil
}
