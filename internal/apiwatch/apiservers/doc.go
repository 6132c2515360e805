// Package apiservers watches where the API servers of a cluster listen: each of them enters its address into the
// EndpointSlice of the Service kubernetes in the namespace default, and takes it out when it ends, or a lease of 15 seconds
// does (k8s.io/kubernetes/pkg/controlplane/reconcilers).
package apiservers
