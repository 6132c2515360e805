//go:build linux

package cli

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"

	"varco.dev/internal/apiserverlb/config"
	"varco.dev/internal/apiserverproxy/server"
)

// apiserverLBFlags are those of apiserver-lb: a file, and what goes before it.
type apiserverLBFlags struct {
	flags *pflag.FlagSet

	file      string
	check     bool
	logFormat string
	verbosity int
	profiling bool

	proxy   apiserverProxyFlags // of the apiserver proxy that is served too, if https.apiserverProxy is set
	options *server.Options     // of the same; its Audit has flags

	listen, backends, proxyFrom []string
	values                      config.Config
	delay, drain                time.Duration
}

func (f *apiserverLBFlags) add(flags *pflag.FlagSet) {
	f.flags, f.values = flags, config.Default()
	v := &f.values
	flags.StringVar(&f.file, "config", "", "File with the configuration; it is read again when it changes, and on SIGHUP. Other flags go before it.")
	flags.BoolVar(&f.check, "check", false, "Only say whether the configuration is right.")
	flags.StringSliceVar(&f.listen, "listen", nil, "IP address and port that clients connect to; \":6443\" is all addresses. More than one are possible.")
	flags.StringSliceVar(&f.backends, "backend", nil, "Address of an API server, host:port; a name stands for all its addresses. More than one are possible.")
	flags.StringVar(&v.Backends.Kubernetes.Kubeconfig, "kubeconfig", "", "Kubeconfig of an account that may list and watch the EndpointSlices of default/kubernetes: the API servers that these name are the backends then, and --backend only where to begin.")
	flags.StringVar(&v.Backends.CacheFile, "cache-file", "", "Where to keep which backends there are, for the next start.")
	flags.StringVar(&v.Zone, "zone", "", "Zone that the balancer runs in: backends of the same zone are preferred (in the file, backends have zones).")
	flags.StringVar(&v.Health.CAFile, "ca-file", "", "Authorities (PEM) of the API servers' certificates. Default: those of the system.")
	flags.StringVar(&v.Health.ServerName, "server-name", "", "Name in the API servers' certificates. Default: their addresses.")
	flags.BoolVar(&v.Health.InsecureSkipVerify, "insecure-skip-tls-verify", false, "Do not verify the API servers' certificates when they are checked.")
	flags.StringVar(&v.Health.CertFile, "client-certificate", "", "Client certificate (PEM) to check the API servers' health with, where they do not show it to everybody.")
	flags.StringVar(&v.Health.KeyFile, "client-key", "", "Key of --client-certificate.")
	flags.StringVar(&v.Health.TokenFile, "token-file", "", "File with a token to check the API servers' health with.")
	flags.IntVar(&v.Limits.Connections, "max-connections", v.Limits.Connections, "Most connections at a time; more are reset.")
	flags.IntVar(&v.Limits.PerSource, "max-connections-per-source", v.Limits.PerSource, "Most connections at a time from one IPv4 address or one IPv6 /64; 0: no limit.")
	flags.StringSliceVar(&f.proxyFrom, "proxy-protocol-from", nil, "Networks from which connections begin with a PROXY header, for all of --listen.")
	flags.DurationVar(&f.delay, "shutdown-delay", v.Drain.ShutdownDelay.Duration, "After SIGTERM, for how long new connections are still taken while /readyz says that it is over.")
	flags.DurationVar(&f.drain, "drain-timeout", v.Drain.Timeout.Duration, "For how long connections may go on then.")
	flags.StringVar(&v.HandoverSocket, "handover-socket", "", "Unix socket by which a new process takes over from the old one.")
	flags.StringVar(&v.MetricsAddress, "metrics-address", v.MetricsAddress, "Serve /metrics, /readyz, /livez and /status at this host:port; empty: not at all.")
	flags.BoolVar(&f.profiling, "profiling", false, "Serve /debug/pprof at --metrics-address too. It lets whoever asks see memory and slow this process down.")
	f.addProxy(flags)
	flags.IntVarP(&f.verbosity, "v", "v", 0, "Verbosity of the log on standard error; from 4 on, single connections.")
	flags.StringVar(&f.logFormat, "logging-format", "text", "Form of the log: text or json.")
}

// addProxy adds the flags of the apiserver proxy, which say nothing unless the file has https.apiserverProxy. They are told by the help
// of that command, not here: they are many, and few want them.
func (f *apiserverLBFlags) addProxy(flags *pflag.FlagSet) {
	own := pflag.NewFlagSet("", pflag.ContinueOnError)
	f.proxy.logFormat, f.options = "text", server.NewOptions()
	f.proxy.addTargets(own)
	f.proxy.addKubelets(own)
	f.proxy.addLimits(own)
	f.options.Audit.AddFlags(own)
	own.VisitAll(func(flag *pflag.Flag) { flag.Hidden = true })
	flags.AddFlagSet(own)
}

// settings are what the file and the flags say together.
func (f *apiserverLBFlags) settings() (config.Config, error) {
	c := config.Default()
	if f.proxyFrom != nil && f.listen == nil {
		return c, errors.New("--proxy-protocol-from is for the addresses of --listen: in a file, it is proxyProtocol.from of a listener")
	}
	if f.file != "" {
		var err error
		if c, err = config.Read(f.file); err != nil {
			return c, fmt.Errorf("--config: %w", err)
		}
	}
	of := c
	f.flags.Visit(func(flag *pflag.Flag) { f.set(&c, flag.Name) })
	followHealth(&c, of)
	c.Complete()
	if err := c.Validate(); err != nil {
		return c, err
	}
	return c, c.CheckFiles()
}

// followHealth has what mode https takes from other sections of a file follow the flags that go before these.
func followHealth(c *config.Config, file config.Config) {
	again := func(field *string, of string) {
		if *field == of {
			*field = ""
		}
	}
	again(&c.HTTPS.CAFile, file.Health.CAFile)
	again(&c.HTTPS.ServerName, file.Health.ServerName)
	again(&c.HTTPS.Kubeconfig, file.Backends.Kubernetes.Kubeconfig)
}

// set takes over a flag that was given.
func (f *apiserverLBFlags) set(c *config.Config, flag string) {
	v := f.values
	switch flag {
	case "listen":
		c.Listeners = nil
		for _, address := range f.listen {
			c.Listeners = append(c.Listeners, config.Listener{Address: address, ProxyProtocol: config.ProxyProtocol{From: f.proxyFrom}})
		}
	case "backend":
		c.Backends.Static = nil
		for _, address := range f.backends {
			c.Backends.Static = append(c.Backends.Static, config.Static{Address: address})
		}
	case "kubeconfig":
		c.Backends.Kubernetes.Kubeconfig = v.Backends.Kubernetes.Kubeconfig
	case "cache-file":
		c.Backends.CacheFile = v.Backends.CacheFile
	case "zone":
		c.Zone = v.Zone
	case "ca-file":
		c.Health.CAFile = v.Health.CAFile
	case "server-name":
		c.Health.ServerName = v.Health.ServerName
	case "insecure-skip-tls-verify":
		c.Health.InsecureSkipVerify = v.Health.InsecureSkipVerify
	case "client-certificate":
		c.Health.CertFile = v.Health.CertFile
	case "client-key":
		c.Health.KeyFile = v.Health.KeyFile
	case "token-file":
		c.Health.TokenFile = v.Health.TokenFile
	case "max-connections":
		c.Limits.Connections = v.Limits.Connections
	case "max-connections-per-source":
		c.Limits.PerSource = v.Limits.PerSource
	case "shutdown-delay":
		c.Drain.ShutdownDelay.Duration = f.delay
	case "drain-timeout":
		c.Drain.Timeout.Duration = f.drain
	case "handover-socket":
		c.HandoverSocket = v.HandoverSocket
	case "metrics-address":
		c.MetricsAddress = v.MetricsAddress
	}
}
