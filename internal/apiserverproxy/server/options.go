package server

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/server/options"
)

// Defaults of Options that upstream has no flag for.
const (
	DefaultSecurePort   = 6443
	DefaultDrainTimeout = 60 * time.Second
)

// Options are what Front and Aggregated have in common, under the names of flags that every server built on k8s.io/apiserver
// has.
type Options struct {
	// Serving is --bind-address, --secure-port, --tls-… and so on. A Listener in it is used in place of the address.
	Serving *options.SecureServingOptions
	// Authentication is --client-ca-file, --requestheader-…, --authentication-…. What is not given comes from the ConfigMap
	// kube-system/extension-apiserver-authentication, which kube-apiserver keeps.
	Authentication *options.DelegatingAuthenticationOptions
	// Authorization is --authorization-….
	Authorization *options.DelegatingAuthorizationOptions
	// Audit is --audit-….
	Audit *options.AuditOptions
	// DrainTimeout is how long open requests have to end when the server does.
	DrainTimeout time.Duration
}

// NewOptions returns the defaults, which are upstream's but for four: the port is 6443, a certificate that nobody has given
// is made in memory and not on disk, and UIDs are read from X-Remote-Uid where --requestheader-client-ca-file is given, since
// a client cannot write that header here; and the group system:masters may do everything, as at kube-apiserver.
func NewOptions() *Options {
	o := &Options{
		Serving:        options.NewSecureServingOptions(),
		Authentication: options.NewDelegatingAuthenticationOptions(),
		Authorization:  options.NewDelegatingAuthorizationOptions(),
		Audit:          options.NewAuditOptions(),
		DrainTimeout:   DefaultDrainTimeout,
	}
	o.Serving.BindPort = DefaultSecurePort
	o.Serving.ServerCert.CertDirectory, o.Serving.ServerCert.PairName = "", "varco"
	o.Authentication.RequestHeader.UIDHeaders = []string{"x-remote-uid"}
	// As kube-apiserver itself, which asks nobody about them.
	o.Authorization.WithAlwaysAllowGroups(user.SystemPrivilegedGroup)
	return o
}

// AddFlags adds the flags.
func (o *Options) AddFlags(fs *pflag.FlagSet) {
	o.Serving.AddFlags(fs)
	o.Authentication.AddFlags(fs)
	o.Authorization.AddFlags(fs)
	o.Audit.AddFlags(fs)
	fs.BoolVar(&o.Authentication.Anonymous.Enabled, "anonymous-auth", o.Authentication.Anonymous.Enabled,
		"Take requests without credentials for those of system:anonymous, as kube-apiserver does, and ask whether that user may. If false, they are answered 401.")
	fs.DurationVar(&o.DrainTimeout, "drain-timeout", o.DrainTimeout,
		"How long open requests have to end when the server ends. Watches end at once: their clients come back.")
}

// Validate says what is wrong with the flags, in upstream's words.
func (o *Options) Validate() error {
	var errs []error
	errs = append(errs, o.Serving.Validate()...)
	errs = append(errs, o.Authentication.Validate()...)
	errs = append(errs, o.Authorization.Validate()...)
	errs = append(errs, o.Audit.Validate()...)
	if o.Serving.BindPort == 0 && o.Serving.Listener == nil {
		errs = append(errs, errors.New("--secure-port must not be 0"))
	}
	if c := o.Serving.ServerCert.CertKey; (c.CertFile == "") != (c.KeyFile == "") {
		errs = append(errs, errors.New("--tls-cert-file and --tls-private-key-file belong together"))
	}
	if o.DrainTimeout < 0 {
		errs = append(errs, fmt.Errorf("--drain-timeout %v is below 0", o.DrainTimeout))
	}
	return errors.Join(errs...)
}

// FrontOptions are those of a Front.
type FrontOptions struct {
	Options
	// ProxyClientCertFile and ProxyClientKeyFile are the front-proxy client certificate, in PEM: one of the authority that
	// kube-apiserver has as --requestheader-client-ca-file, with a name that its --requestheader-allowed-names allow. Whoever
	// holds the key is anybody in the cluster. The files are followed. Empty: client certificates cannot be carried over.
	ProxyClientCertFile, ProxyClientKeyFile string
	// InsecureLoopbackPort serves plain HTTP on 127.0.0.1 as well; its clients need tokens as others do. 0: none.
	InsecureLoopbackPort int
}

// NewFrontOptions returns the defaults.
func NewFrontOptions() *FrontOptions { return &FrontOptions{Options: *NewOptions()} }

// AddFlags adds the flags.
func (o *FrontOptions) AddFlags(fs *pflag.FlagSet) {
	o.Options.AddFlags(fs)
	fs.StringVar(&o.ProxyClientCertFile, "proxy-client-cert-file", o.ProxyClientCertFile,
		"Client certificate by which the API server trusts the identities that are carried over: kube-apiserver's own flag of this name. Needed for clients with certificates.")
	fs.StringVar(&o.ProxyClientKeyFile, "proxy-client-key-file", o.ProxyClientKeyFile, "Private key of --proxy-client-cert-file.")
	fs.IntVar(&o.InsecureLoopbackPort, "insecure-loopback-port", o.InsecureLoopbackPort,
		"Serve plain HTTP on this port of 127.0.0.1 as well, for clients with tokens. 0: do not.")
}

// Validate says what is wrong with the flags.
func (o *FrontOptions) Validate() error {
	err := o.Options.Validate()
	if (o.ProxyClientCertFile == "") != (o.ProxyClientKeyFile == "") {
		err = errors.Join(err, errors.New("--proxy-client-cert-file and --proxy-client-key-file belong together"))
	}
	if o.InsecureLoopbackPort < 0 || o.InsecureLoopbackPort > 65535 {
		err = errors.Join(err, fmt.Errorf("--insecure-loopback-port %d is no port", o.InsecureLoopbackPort))
	}
	return err
}
