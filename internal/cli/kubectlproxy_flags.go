package cli

import (
	"errors"
	"fmt"
	"sync"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/tools/clientcmd"

	"varco.dev/internal/kubectlproxy"
	"varco.dev/internal/kubectlproxy/cluster"
	"varco.dev/internal/kubectlproxy/guard"
	"varco.dev/internal/kubectlproxy/origin"
)

// kubectlProxyFlags are kubectl proxy's, those that all kubectl commands have, and Varco's own.
type kubectlProxyFlags struct {
	flags     *pflag.FlagSet
	kube      *genericclioptions.ConfigFlags
	once      func() clientcmd.ClientConfig // the kubeconfig, for one that can be read only once
	values    kubectlproxy.Config
	keepalive time.Duration
	logFormat string
	verbosity int
}

func newKubectlProxyFlags() *kubectlProxyFlags {
	// Not persistent: the kubeconfig is read again when it changes.
	kube := genericclioptions.NewConfigFlags(false).WithDeprecatedPasswordFlag()
	return &kubectlProxyFlags{kube: kube, once: sync.OnceValue(kube.ToRawKubeConfigLoader)}
}

func (f *kubectlProxyFlags) addFlags(flags *pflag.FlagSet) {
	f.flags = flags
	f.addUpstream(flags)
	f.addSafety(flags)
	f.addServing(flags)
	f.addLimits(flags)
	f.addLog(flags)
	f.kube.AddFlags(flags)
	f.addIgnored(flags)
}

// addUpstream adds the flags of kubectl proxy.
func (f *kubectlProxyFlags) addUpstream(flags *pflag.FlagSet) {
	v := &f.values
	flags.IntVarP(&v.Port, "port", "p", kubectlproxy.DefaultPort, "Port to serve on; 0 finds a free one.")
	flags.StringVar(&v.Address, "address", "127.0.0.1", "IP address to serve on; IPv6 with or without brackets.")
	flags.StringVarP(&v.UnixSocket, "unix-socket", "u", "", "Unix socket to serve on, in place of --address and --port.")
	flags.StringVar(&v.APIPrefix, "api-prefix", "/", "Where to serve the API. A prefix that begins with /api stays part of the path, others are cut off.")
	flags.StringVarP(&v.StaticDir, "www", "w", "", "Folder of files to serve too.")
	flags.StringVarP(&v.StaticPrefix, "www-prefix", "P", "/static/", "Where to serve the files of --www.")
	g := &v.Guard
	flags.StringVar(&g.AcceptPaths, "accept-paths", guard.DefaultAcceptPaths, "Regular expressions for paths to serve, separated by commas.")
	flags.StringVar(&g.RejectPaths, "reject-paths", guard.DefaultRejectPaths, "Regular expressions for paths to refuse, even if accepted. Given without --allow, it alone decides about commands in pods.")
	flags.StringVar(&g.AcceptHosts, "accept-hosts", guard.DefaultAcceptHosts, "Regular expressions for hosts as clients name them (the Host header, not their address).")
	flags.StringVar(&g.RejectMethods, "reject-methods", guard.DefaultRejectMethods, "Regular expressions for HTTP methods to refuse, such as 'POST,PUT,PATCH'.")
	flags.BoolVar(&g.Disabled, "disable-filter", false, "Switch off the checks of paths, hosts, methods and origins. Dangerous: any page in a browser can then use your credentials.")
	flags.DurationVar(&f.keepalive, "keepalive", 0, "Period of keepalives on upgraded connections to the API server. If not given 15s; 0 switches them off.")
	flags.BoolVar(&v.Clusters.ServerPath, "append-server-path", true, "Put the path of the kubeconfig's server before the path of each request.")
}

// addSafety adds the flags that say who may do what.
func (f *kubectlProxyFlags) addSafety(flags *pflag.FlagSet) {
	v := &f.values
	flags.StringSliceVar(&v.Guard.Allow, "allow", nil, "What is refused by default: exec (nodes' too), attach, portforward.")
	flags.BoolVar(&v.Guard.ReadOnly, "read-only", false, "Serve get, list and watch only.")
	flags.StringSliceVar(&v.Guard.Deny, "deny", nil, "Resources that nobody gets, such as secrets, deployments.apps, pods/log.")
	flags.StringVar(&v.Guard.AcceptOrigins, "accept-origins", "", "Regular expressions for other sites whose pages may change things and open streams through this proxy, such as '^https://dash\\.example\\.com$'.")
	flags.BoolVar(&v.RequireToken, "require-token", false, "Serve only who knows the token of this run: it is in the URL that is printed, and may be sent as X-Varco-Token, or before the path as /token/TOKEN/.")
	flags.BoolVar(&v.SameUser, "same-user", false, "Serve only processes of this user: on unix sockets, and on loopback addresses (Linux). All others are refused.")
	flags.StringVar(&v.Clusters.ClientAuthorization, "client-authorization", cluster.IgnoreAuthorization, "What to do with a client's own Authorization header for the API server: ignore, forward (in place of the kubeconfig's credentials) or reject.")
}

// addServing adds the flags about what else is served.
func (f *kubectlProxyFlags) addServing(flags *pflag.FlagSet) {
	v := &f.values
	flags.StringSliceVar(&v.Clusters.Contexts, "contexts", nil, "Serve these contexts of the kubeconfig too, or all, at /clusters/CONTEXT/.")
	flags.StringVar(&v.Services, "services", origin.ModeAuto, "How Services are reached under their own host names: auto, tunnel (port-forward), proxy (the API server's), off.")
	flags.BoolVar(&v.UI, "ui", false, "Show the start page at /. It is also there when neither --api-prefix nor --www-prefix is /.")
	flags.StringVar(&v.TLS.CertFile, "tls-cert-file", "", "Serve HTTPS with this certificate (PEM).")
	flags.StringVar(&v.TLS.KeyFile, "tls-private-key-file", "", "Key of --tls-cert-file (PEM).")
	flags.BoolVar(&v.TLS.SelfSigned, "tls-self-signed", false, "Serve HTTPS with a certificate made for this run.")
	flags.StringVar(&v.TLS.ClientCAFile, "tls-client-ca-file", "", "Serve only clients with a certificate of these authorities (PEM).")
	flags.StringVar(&v.MetricsAddress, "metrics-address", "", "Serve /metrics and /healthz at this host:port.")
}

// addLimits adds the bounds.
func (f *kubectlProxyFlags) addLimits(flags *pflag.FlagSet) {
	v := &f.values
	flags.DurationVar(&v.DrainTimeout, "drain-timeout", kubectlproxy.DefaultDrainTimeout, "How long streams may go on once this proxy is asked to end.")
	flags.DurationVar(&v.HeaderTimeout, "header-timeout", kubectlproxy.DefaultHeaderTimeout, "How long a client may take for the header of a request.")
	flags.DurationVar(&v.BodyTimeout, "body-timeout", kubectlproxy.DefaultBodyTimeout, "How long the body of a request may stand still.")
	flags.DurationVar(&v.IdleTimeout, "idle-timeout", kubectlproxy.DefaultIdleTimeout, "How long a client's connection may be without a request.")
	flags.IntVar(&v.MaxHeaderBytes, "max-header-bytes", kubectlproxy.DefaultMaxHeaderBytes, "Most bytes of a request's header.")
	flags.Int64Var(&v.MaxBodyBytes, "max-body-bytes", 0, "Most bytes of a request's body for the API server; 0 leaves it to the API server.")
	flags.IntVar(&v.MaxConnections, "max-connections", kubectlproxy.DefaultMaxConnections, "Most connections of clients at a time.")
}

func (f *kubectlProxyFlags) addLog(flags *pflag.FlagSet) {
	flags.IntVarP(&f.verbosity, "v", "v", 0, "Verbosity of the log on standard error; from 3 on, each request.")
	flags.StringVar(&f.logFormat, "logging-format", "text", "Form of the log: text or json.")
}

// addIgnored takes the flags that all kubectl commands have and that mean nothing here, so that command lines go on working.
func (f *kubectlProxyFlags) addIgnored(flags *pflag.FlagSet) {
	for _, name := range []string{"match-server-version", "warnings-as-errors"} {
		flags.Bool(name, false, "")
	}
	for name, value := range map[string]string{"profile": "none", "profile-output": "profile.pprof", "kuberc": "", "vmodule": "", "log-flush-frequency": "5s"} {
		flags.String(name, value, "")
	}
	for _, name := range []string{"match-server-version", "warnings-as-errors", "profile", "profile-output", "kuberc", "vmodule", "log-flush-frequency", "cache-dir", "namespace", "request-timeout"} {
		if flag := flags.Lookup(name); flag != nil {
			flag.Hidden = true
		}
	}
}

// config is what the flags mean together.
func (f *kubectlProxyFlags) config() (kubectlproxy.Config, error) {
	c := f.values
	given := f.flags.Changed
	if c.UnixSocket != "" && c.Port != kubectlproxy.DefaultPort {
		return c, errors.New("--unix-socket: cannot set --unix-socket and --port at the same time")
	}
	if f.logFormat != "text" && f.logFormat != "json" {
		return c, fmt.Errorf("--logging-format: %q is none of text, json", f.logFormat)
	}
	if err := cluster.CheckAuthorization(c.Clusters.ClientAuthorization); err != nil {
		return c, fmt.Errorf("--client-authorization: %w", err)
	}
	// Who takes paths out of --reject-paths means what is at these paths.
	c.Guard.AllowAll = given("reject-paths") && !given("allow")
	if given("keepalive") {
		c.Clusters.Keepalive = cluster.KeepAlive{Set: true, Period: f.keepalive}
	}
	c.Clusters.Current = *f.kube.Context
	c.Clusters.Load, c.Clusters.Files = f.load, f.files
	if !regular(f.files()) {
		c.Clusters.Load, c.Clusters.Files = f.loadOnce, nil
	}
	return c, nil
}
