// Package kubeproxy is the node data plane for Services: it wires what the API server says to the nftables of this node.
package kubeproxy
