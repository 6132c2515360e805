package cli

import (
	"context"
	"io"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/spf13/cobra"

	"varco.dev/internal/kubectlproxy"
	"varco.dev/internal/observe"
)

// pluginName is what kubectl runs for `kubectl varco`.
const pluginName = "kubectl-varco"

func kubectlProxy() *cobra.Command {
	f := newKubectlProxyFlags()
	cmd := &cobra.Command{
		Use:     "kubectl-proxy",
		Aliases: []string{"proxy"},
		Short:   "Serve the Kubernetes API and Services on a local port, in place of kubectl proxy",
		Long: `Serve the Kubernetes API on a local port with the credentials of a kubeconfig, in
place of kubectl proxy: with its flags, its defaults and its first line of output.

Every Service of the cluster also has a host name of its own, for browsers and
any other client: http://PORT.SERVICE.NAMESPACE.svc.localhost:8001/, and every pod
http://PORT.POD.NAMESPACE.pod.localhost:8001/.

Pages of other sites cannot use it, commands in pods are refused until --allow,
and --read-only and --deny take away more. --ui shows a page of all Services.`,
		Example: `  # the API at http://127.0.0.1:8001/
  varco kubectl-proxy

  # a free port, a page of all Services at /
  varco kubectl-proxy --port 0 --ui

  # nobody writes, nobody reads Secrets
  varco kubectl-proxy --read-only --deny secrets

  # for kubectl exec and kubectl port-forward through this proxy
  varco kubectl-proxy --allow exec,attach,portforward

  # all contexts of the kubeconfig, each at /clusters/CONTEXT/
  varco kubectl-proxy --contexts all

  # for this user's programs alone
  varco kubectl-proxy --unix-socket /tmp/kubernetes.sock

  # files beside the API, which moves to /k8s/
  varco kubectl-proxy --www ./site --www-prefix /site/ --api-prefix /k8s/`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return f.run(cmd.Context(), cmd.OutOrStdout(), cmd.ErrOrStderr())
		},
	}
	cmd.Flags().SortFlags = false
	cmd.Flags().SetNormalizeFunc(dashes)
	f.addFlags(cmd.Flags())
	return cmd
}

// calledAs is the name in help texts: the words that the user types before the command.
func calledAs(program string) string {
	if strings.TrimSuffix(filepath.Base(program), ".exe") == pluginName {
		return "kubectl varco"
	}
	return "varco"
}

// collectLater is the GOGC of this command. What lives is about 5 MiB; with Go's 100, garbage would be collected each time as
// much has come together, which is 60 times a second under load and a tenth of the CPU.
const collectLater = 400

func (f *kubectlProxyFlags) run(ctx context.Context, out, errOut io.Writer) error {
	log, _ := observe.NewLog(errOut, f.logFormat, f.verbosity)
	config, err := f.config()
	if err != nil {
		return err
	}
	config.Log, config.Out, config.Version = log.With("component", "kubectl-proxy"), out, version()
	if f.namesNoServer(config.Clusters.Load("")) {
		config.Log.Warn("the kubeconfig names no API server, so localhost:8080 is taken: name a kubeconfig with --kubeconfig, or a server with --server")
	}
	proxy, err := kubectlproxy.New(config)
	if err != nil {
		return err
	}
	if os.Getenv("GOGC") == "" {
		debug.SetGCPercent(collectLater)
	}
	releaseImage(config.Log)
	return proxy.Run(ctx)
}
