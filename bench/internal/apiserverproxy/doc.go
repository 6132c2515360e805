// Package apiserverproxy measures varco apiserver-proxy beside the proxy subresources of kube-apiserver: the same control
// plane, the same targets and the same clients, by turns.
package apiserverproxy
