package upstream

import (
	"context"
	"fmt"
	"net"
	"net/http"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	genericapiserver "k8s.io/apiserver/pkg/server"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	basecompatibility "k8s.io/component-base/compatibility"
	logsapi "k8s.io/component-base/logs/api/v1"
	apiserver "k8s.io/kubernetes/cmd/kube-apiserver/app"
	"k8s.io/kubernetes/cmd/kube-apiserver/app/options"
	kubeletclient "k8s.io/kubernetes/pkg/kubelet/client"
)

// Guest is a handler that a kube-apiserver mounts in its own process, behind its authentication, authorization, audit and
// flow control.
type Guest interface {
	// AddFlags adds the guest's own flags to those of kube-apiserver; it is called once, before Join.
	AddFlags(fs *pflag.FlagSet)
	// Join is called once, before the server serves. It returns the handler that takes the place of next, to which it
	// gives what it does not serve itself, and what runs as long as the server: run blocks until ctx ends.
	Join(host Host, next http.Handler) (handler http.Handler, run func(ctx context.Context) error, err error)
}

// Host is what a kube-apiserver lends its guest. All of it works once the server serves.
type Host struct {
	Client     *rest.Config          // the server itself, with all rights; a copy
	Admission  admission.Interface   // the server's whole chain
	Authorizer authorizer.Authorizer // as configured by the server's flags
	Kubelet    Kubelet
	Listens    net.Addr // where the server serves
}

// Kubelet is how the server reaches kubelets: values of its flags --kubelet-….
type Kubelet struct {
	CertFile, KeyFile, CAFile string // PEM; empty if not given
	AddressTypes              []string
}

// hostCommand is kube-apiserver with a guest.
func hostCommand(name string, guest Guest) *cobra.Command {
	return component(name, func() *cobra.Command { return newHost(guest) })
}

// newHost makes the command that upstream's NewAPIServerCommand makes, with the guest's flags and handler added.
func newHost(guest Guest) *cobra.Command {
	s := options.NewServerRunOptions()
	cmd := &cobra.Command{
		Use:          "kube-apiserver",
		Args:         cobra.NoArgs,
		SilenceUsage: true,
		RunE:         func(cmd *cobra.Command, _ []string) error { return runHost(cmd.Context(), s, guest) },
	}
	cmd.SetContext(genericapiserver.SetupSignalContext())
	for _, fs := range s.Flags().FlagSets {
		cmd.Flags().AddFlagSet(fs)
	}
	guest.AddFlags(cmd.Flags())
	return cmd
}

// runHost does what upstream's command and its Run do; only the join is added.
func runHost(ctx context.Context, s *options.ServerRunOptions, guest Guest) error {
	registry := s.GenericServerRunOptions.ComponentGlobalsRegistry
	if err := registry.Set(); err != nil {
		return err
	}
	rest.SetDefaultWarningHandler(rest.NoWarnings{}) // the server asks itself
	if err := logsapi.ValidateAndApply(s.Logs, registry.FeatureGateFor(basecompatibility.DefaultKubeComponent)); err != nil {
		return err
	}
	opts, err := s.Complete(ctx)
	if err != nil {
		return err
	}
	if errs := opts.Validate(); len(errs) != 0 {
		return utilerrors.NewAggregate(errs)
	}
	if opts.InformerName == nil {
		if opts.InformerName, err = cache.NewInformerName("kube-apiserver"); err != nil {
			return err
		}
	}
	conf, err := apiserver.NewConfig(opts)
	if err != nil {
		return err
	}
	if err := join(conf, guest); err != nil {
		return err
	}
	return serve(ctx, conf)
}

// join puts the guest between the filters and the API. The aggregator is the outermost of kube-apiserver's three servers
// and the only one whose filters requests pass.
func join(conf *apiserver.Config, guest Guest) error {
	generic := &conf.Aggregator.GenericConfig.Config
	build, host := generic.BuildHandlerChainFunc, hostOf(conf)
	var handler http.Handler
	var run func(context.Context) error
	var failed error
	generic.BuildHandlerChainFunc = func(api http.Handler, c *genericapiserver.Config) http.Handler {
		if handler, run, failed = guest.Join(host, api); failed != nil {
			return build(api, c) // the server ends before it serves: see below
		}
		return build(handler, c)
	}
	return generic.AddPostStartHook("lab-guest", func(ctx genericapiserver.PostStartHookContext) error {
		if failed != nil {
			return fmt.Errorf("mount the guest: %w", failed) // a hook's error ends the server
		}
		go func() {
			if err := run(ctx); err != nil {
				panic(fmt.Errorf("the guest ended: %w", err)) // a server that lacks its guest is not the one asked for
			}
		}()
		return nil
	})
}

func hostOf(conf *apiserver.Config) Host {
	kube := conf.KubeAPIs.ControlPlane.Generic
	return Host{
		Client:     rest.CopyConfig(kube.LoopbackClientConfig),
		Admission:  kube.AdmissionControl,
		Authorizer: kube.Authorization.Authorizer,
		Kubelet:    kubeletOf(conf.KubeAPIs.Extra.KubeletClientConfig),
		Listens:    kube.SecureServing.Listener.Addr(),
	}
}

func kubeletOf(c kubeletclient.KubeletClientConfig) Kubelet {
	t := c.TLSClientConfig
	return Kubelet{CertFile: t.CertFile, KeyFile: t.KeyFile, CAFile: t.CAFile, AddressTypes: c.PreferredAddressTypes}
}

func serve(ctx context.Context, conf *apiserver.Config) error {
	completed, err := conf.Complete()
	if err != nil {
		return err
	}
	server, err := apiserver.CreateServerChain(completed)
	if err != nil {
		return err
	}
	prepared, err := server.PrepareRun()
	if err != nil {
		return err
	}
	return prepared.Run(ctx)
}
