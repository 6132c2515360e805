//go:build linux

package cli

import (
	"fmt"
	"net/netip"
	"strings"

	"github.com/spf13/pflag"

	"varco.dev/internal/apiserverproxy"
	"varco.dev/internal/apiserverproxy/balance"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiserverproxy/outbound"
)

// defaultAPIServerProxyMetrics is where metrics are served unless the command line says otherwise.
const defaultAPIServerProxyMetrics = "127.0.0.1:10262"

// apiserverProxyFlags are what the ways of apiserver-proxy have in common; kube-apiserver's names where it has such a flag.
type apiserverProxyFlags struct {
	kubeconfig     string
	values         apiserverproxy.Config
	allow, deny    []string
	egress         string
	onlyOnce       bool
	metricsAddress string
	profiling      bool
	logFormat      string
	verbosity      int
}

func (f *apiserverProxyFlags) addFlags(flags *pflag.FlagSet) {
	flags.StringVar(&f.kubeconfig, "kubeconfig", "", "Kubeconfig of the API server, with an account that may watch Services, EndpointSlices, pods and nodes, and ask who a client is and what it may do. In a pod: not needed.")
	flags.StringVar(&f.values.Balance.Zone, "zone", "", "Zone that this proxy runs in: endpoints that topology hints give to it are preferred.")
	f.addTargets(flags)
	f.addKubelets(flags)
	f.addLimits(flags)
	flags.StringVar(&f.metricsAddress, "metrics-address", defaultAPIServerProxyMetrics, "Serve /metrics, /healthz and /readyz at this host:port; empty: not at all.")
	flags.BoolVar(&f.profiling, "profiling", false, "Serve /debug/pprof at --metrics-address too. It lets whoever asks see memory and slow this process down.")
	flags.IntVarP(&f.verbosity, "v", "v", 0, "Verbosity of the log on standard error; from 3 on, each request.")
	flags.StringVar(&f.logFormat, "logging-format", "text", "Form of the log: text or json.")
}

// addTargets adds the flags about where requests go.
func (f *apiserverProxyFlags) addTargets(flags *pflag.FlagSet) {
	v := &f.values
	flags.StringSliceVar(&f.allow, "allow-cidr", nil, "Networks of endpoints that are no pods: those of Services without selector, and external ones. Without it only pods are endpoints, as with kube-apiserver.")
	flags.StringSliceVar(&f.deny, "deny-cidr", nil, "Networks that no request gets to, besides loopback, link-local, metadata and multicast addresses and the API servers.")
	flags.IntVar(&v.Balance.MaxTries, "max-tries", balance.DefaultMaxTries, "How many endpoints a request is sent to at most.")
	flags.BoolVar(&f.onlyOnce, "retry-unsent-only", false, "Send a request to another endpoint only if nothing of it was sent; not even one that is idempotent.")
	flags.StringVar(&v.Outbound.CAFile, "backend-ca-file", "", "Authorities (PEM) that the certificates of https targets are verified with; the annotation varco.dev/backend-ca goes before it. Without both they are not verified, as with kube-apiserver.")
	flags.StringVar(&v.Outbound.ClientCertFile, "backend-client-certificate", "", "Client certificate (PEM) for https targets that ask for one.")
	flags.StringVar(&v.Outbound.ClientKeyFile, "backend-client-key", "", "Key of --backend-client-certificate.")
	flags.StringVar(&f.egress, "egress-selector-config-file", "", "EgressSelectorConfiguration, as for kube-apiserver: its selection \"cluster\" leads to targets (konnectivity).")
	flags.BoolVar(&v.StrictUpgrades, "strict-upgrades", false, "Upgrades, and what runs commands through a node, need the permission to create as well.")
}

// addKubelets adds the flags about nodes.
func (f *apiserverProxyFlags) addKubelets(flags *pflag.FlagSet) {
	k := &f.values.Outbound.Kubelet
	flags.StringVar(&k.CertFile, "kubelet-client-certificate", "", "Client certificate (PEM) for kubelets.")
	flags.StringVar(&k.KeyFile, "kubelet-client-key", "", "Key of --kubelet-client-certificate.")
	flags.StringVar(&k.CAFile, "kubelet-certificate-authority", "", "Authorities (PEM) that kubelets' certificates are verified with. Without it they are not verified.")
	flags.StringVar(&k.TokenFile, "kubelet-token-file", "", "Token for kubelets, in place of a certificate; needs --kubelet-certificate-authority.")
	flags.StringSliceVar(&f.values.Locate.NodeAddressTypes, "kubelet-preferred-address-types", locate.DefaultNodeAddressTypes(), "Types of node addresses, the preferred one first.")
}

// addLimits adds the bounds.
func (f *apiserverProxyFlags) addLimits(flags *pflag.FlagSet) {
	v := &f.values
	flags.IntVar(&v.MaxPerUser, "max-requests-per-user", apiserverproxy.DefaultMaxPerUser, "Most requests of one user at a time, upgrades included; 0: the default; below 0: no limit.")
	flags.IntVar(&v.MaxPerTarget, "max-requests-per-target", apiserverproxy.DefaultMaxPerTarget, "Most requests to one node, pod or Service at a time; 0: the default; below 0: no limit.")
	flags.IntVar(&v.MaxUpgrades, "max-upgrades", apiserverproxy.DefaultMaxUpgrades, "Most upgraded connections to targets at a time; 0: the default; below 0: no limit.")
	flags.DurationVar(&v.Outbound.DialTimeout, "target-connect-timeout", outbound.DefaultDialTimeout, "How long a connection to a target may take to be made.")
	flags.DurationVar(&v.Outbound.HeaderTimeout, "target-header-timeout", 0, "How long a target may take to begin its answer; 0: for ever, as with kube-apiserver.")
	flags.DurationVar(&v.Outbound.IdleTimeout, "target-idle-timeout", 0, "How long a connection to a target may be without a byte while in use; 0: for ever.")
}

// config is what the flags mean together.
func (f *apiserverProxyFlags) config() (apiserverproxy.Config, error) {
	c := f.values
	var err error
	if c.Locate.AllowCIDRs, err = cidrs("--allow-cidr", f.allow); err != nil {
		return c, err
	}
	if c.Outbound.Deny, err = cidrs("--deny-cidr", f.deny); err != nil {
		return c, err
	}
	if f.logFormat != "text" && f.logFormat != "json" {
		return c, fmt.Errorf("--logging-format: %q is none of text, json", f.logFormat)
	}
	if c.Balance.MaxTries < 1 {
		return c, fmt.Errorf("--max-tries: %d is less than one", c.Balance.MaxTries)
	}
	c.Balance.OnlyUnsent = f.onlyOnce
	return c, nil
}

// cidrs reads networks; an address alone is the network of itself.
func cidrs(flag string, words []string) (out []netip.Prefix, err error) {
	for _, word := range words {
		word = strings.TrimSpace(word)
		p, err := netip.ParsePrefix(word)
		if a, err2 := netip.ParseAddr(word); err != nil && err2 == nil {
			p, err = a.Prefix(a.BitLen())
		}
		if err != nil {
			return nil, fmt.Errorf("%s: %q is no network such as 10.0.0.0/8", flag, word)
		}
		out = append(out, p.Masked())
	}
	return out, nil
}
