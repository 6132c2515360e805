// Package kubeproxy measures varco kube-proxy beside upstream's kube-proxy in mode nftables: the same objects of the same
// API server, the same machine, by turns.
package kubeproxy
