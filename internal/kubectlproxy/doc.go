// Package kubectlproxy is the proxy on the user's side: HTTP on a local port, in front of the API servers that a kubeconfig
// names, in place of kubectl proxy.
package kubectlproxy
