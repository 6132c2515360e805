// Package ui is the start page of kubectl-proxy: the Services of a cluster, their ports and endpoints, live, with a link
// to each port's own origin.
//
// The page is plain HTML, CSS and ES modules in folder assets, embedded as they are: no framework, no build step, nothing
// from another origin, nothing inline. It reads the API through the proxy that serves it, so it sees what its user may
// see, and this package needs no access to the cluster.
package ui
