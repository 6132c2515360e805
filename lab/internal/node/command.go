package node

import (
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/klog/v2"
	"varco.dev/internal/nettest"
)

// options are the flags as given.
type options struct {
	config     Config
	kubeconfig string
	server     ServerConfig
	images     []string
	ips        []string
}

// Command returns `varco-lab node`, which runs the agent in the network namespace that the process is in.
func Command() *cobra.Command {
	var o options
	cmd := &cobra.Command{
		Use:   "node --name NAME --kubeconfig FILE --node-ip IP…",
		Short: "Run the node agent in this network namespace",
		Long: `node is the node agent of the lab, a small kubelet. The lab starts one in the network namespace of each node;
a person has no need to. It runs each pod bound to the node as processes in a network namespace of their own.`,
		Args:   cobra.NoArgs,
		Hidden: true,
		RunE: func(cmd *cobra.Command, _ []string) error {
			cfg, err := o.complete()
			if err != nil {
				return err
			}
			defer cfg.Namespace.Close()
			return New(cfg).Run(cmd.Context())
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.config.Name, "name", "", "name of the Node")
	f.StringVar(&o.kubeconfig, "kubeconfig", "", "how to reach the API server, as system:node:NAME")
	f.StringVar(&o.config.Dir, "dir", "", "folder for pods' volumes and logs")
	f.StringVar(&o.config.NetnsDir, "netns-dir", "", "folder in which each pod's network namespace is a file NAMESPACE_POD")
	f.StringArrayVar(&o.ips, "node-ip", nil, "address of the node, one for each family")
	f.StringVar(&o.config.Zone, "zone", "", "zone that the node is in")
	f.StringArrayVar(&o.images, "image", nil, "NAME=PATH[,ARG…]: the program that stands for an image; lab/echo is built in")
	f.StringVar(&o.server.ClientCAFile, "client-ca", "", "certificate authority of the clients of port 10250")
	f.StringVar(&o.server.CertFile, "cert", "", "certificate of port 10250; without it the port is not served")
	f.StringVar(&o.server.KeyFile, "key", "", "key of port 10250")
	cmd.AddCommand(initCmd())
	for _, name := range []string{"name", "kubeconfig", "dir", "netns-dir", "node-ip"} {
		_ = cmd.MarkFlagRequired(name)
	}
	return cmd
}

func (o *options) complete() (Config, error) {
	cfg := o.config
	cfg.Log = slog.New(slog.NewTextHandler(os.Stderr, nil)).With("component", "node", "node", cfg.Name)
	klog.SetSlogLogger(cfg.Log.With("from", "client-go"))
	var err error
	if cfg.Images, err = parseImages(o.images); err != nil {
		return cfg, err
	}
	for _, s := range o.ips {
		ip, err := netip.ParseAddr(s)
		if err != nil {
			return cfg, fmt.Errorf("read --node-ip: %w", err)
		}
		cfg.NodeIPs = append(cfg.NodeIPs, ip)
	}
	if o.server.CertFile != "" {
		cfg.Server = &o.server
	}
	rest, err := clientcmd.BuildConfigFromFlags("", o.kubeconfig)
	if err != nil {
		return cfg, fmt.Errorf("read kubeconfig: %w", err)
	}
	// Status changes go out at once; the API server's priority and fairness is the limit, as the agent is one client of few.
	rest.QPS = -1
	rest.ContentType = "application/vnd.kubernetes.protobuf"
	rest.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	rest.UserAgent = "varco-lab-node"
	if cfg.Client, err = kubernetes.NewForConfig(rest); err != nil {
		return cfg, fmt.Errorf("make API client: %w", err)
	}
	cfg.Namespace, err = nettest.OpenNamespace(cfg.Name, "/proc/self/ns/net")
	return cfg, err
}

// parseImages reads NAME=PATH[,ARG…] values and adds lab/echo.
func parseImages(values []string) (map[string][]string, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own executable: %w", err)
	}
	images := map[string][]string{"lab/echo": {self, "echo"}}
	for _, v := range values {
		name, command, ok := strings.Cut(v, "=")
		if !ok || name == "" || !strings.HasPrefix(command, "/") {
			return nil, fmt.Errorf("read --image %q: want NAME=/PATH[,ARG…]", v)
		}
		images[name] = strings.Split(command, ",")
	}
	return images, nil
}
