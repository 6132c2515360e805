package cli

import (
	"os"
	"strings"

	"k8s.io/cli-runtime/pkg/genericclioptions"
	"k8s.io/client-go/tools/clientcmd"
)

// load returns the kubeconfig as the command line has it, with another context if one is named. It is read when asked, so
// each call sees the files as they are.
func (f *kubectlProxyFlags) load(context string) clientcmd.ClientConfig {
	flags := f.kube
	if context != "" {
		flags = genericclioptions.NewConfigFlags(false)
		flags.KubeConfig, flags.Context = f.kube.KubeConfig, &context
		flags.Impersonate, flags.ImpersonateUID, flags.ImpersonateGroup = f.kube.Impersonate, f.kube.ImpersonateUID, f.kube.ImpersonateGroup
		flags.ImpersonateUserExtra, flags.DisableCompression = f.kube.ImpersonateUserExtra, f.kube.DisableCompression
	}
	return flags.ToRawKubeConfigLoader()
}

// files are the kubeconfigs that decide, whether they exist or not.
func (f *kubectlProxyFlags) files() []string {
	if path := *f.kube.KubeConfig; path != "" {
		return []string{path}
	}
	return clientcmd.NewDefaultClientConfigLoadingRules().GetLoadingPrecedence()
}

// namesNoServer says whether neither the command line, nor the kubeconfig, nor the environment names an API server. client-go
// takes localhost:8080 then, as kubectl does.
func (f *kubectlProxyFlags) namesNoServer(kubeconfig clientcmd.ClientConfig) bool {
	if *f.kube.APIServer != "" || os.Getenv("KUBERNETES_MASTER") != "" || os.Getenv("KUBERNETES_SERVICE_HOST") != "" {
		return false
	}
	raw, err := kubeconfig.RawConfig()
	return err == nil && len(raw.Clusters) == 0
}

// regular says whether the files can be read again and again. A pipe cannot: --kubeconfig <(kind get kubeconfig) has its
// content once, and a second look at a named pipe would wait for someone who writes.
func regular(files []string) bool {
	for _, path := range files {
		if info, err := os.Stat(path); err == nil && !info.Mode().IsRegular() && !info.IsDir() {
			return false
		}
	}
	return true
}

// loadOnce is load for a kubeconfig that is read once, as kubectl reads all.
func (f *kubectlProxyFlags) loadOnce(context string) clientcmd.ClientConfig {
	kept := f.once()
	if context == "" {
		return kept
	}
	raw, err := kept.RawConfig()
	if err != nil {
		return kept // which says so again
	}
	overrides := &clientcmd.ConfigOverrides{}
	overrides.ClusterInfo.DisableCompression = *f.kube.DisableCompression
	user := &overrides.AuthInfo
	user.Impersonate, user.ImpersonateUID, user.ImpersonateGroups = *f.kube.Impersonate, *f.kube.ImpersonateUID, *f.kube.ImpersonateGroup
	for _, extra := range *f.kube.ImpersonateUserExtra {
		if key, value, ok := strings.Cut(extra, "="); ok {
			if user.ImpersonateUserExtra == nil {
				user.ImpersonateUserExtra = map[string][]string{}
			}
			user.ImpersonateUserExtra[key] = append(user.ImpersonateUserExtra[key], value)
		}
	}
	return clientcmd.NewNonInteractiveClientConfig(raw, context, overrides, nil)
}
