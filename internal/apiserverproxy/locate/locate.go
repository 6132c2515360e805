// Package locate finds where a request goes: the endpoints behind an address, and how to speak to them.
//
// It follows what kube-apiserver does (ResourceLocation in pkg/registry/core of Kubernetes: pod/strategy.go,
// service/storage/storage.go and node/strategy.go, and RandomEndpoint of k8s.io/apiserver), with its error codes and words,
// but names all endpoints that may serve, not a random one, and finds more of them. Each file says where it does more.
package locate

import (
	"context"
	"net/netip"
	"time"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiwatch/directory"
	"varco.dev/internal/service"
)

// The schemes of targets. H2C is HTTP/2 without TLS.
const (
	HTTP  = "http"
	HTTPS = "https"
	H2C   = "h2c"
)

// Destination is where a request may go. It is shared and must not be changed.
type Destination struct {
	Kind            address.Kind
	Namespace, Name string
	Port            string // its name, or its number: what tells the ports of a Service apart
	// Key is equal for requests whose endpoints are one pool. It holds the object's UID, so that one that is made again has a
	// new pool, and the scheme, so that those who speak TLS to a port without it do not spoil it for others.
	Key       string
	Scheme    string               // HTTP, HTTPS or H2C
	Endpoints []Endpoint           // to choose from, in no order that means anything, no address twice
	Host      string               // host:port of a node whose preferred address is a name; Endpoints is empty then
	Kubelet   bool                 // it is the kubelet's port
	TLS       directory.BackendTLS // for HTTPS; else zero, so that targets without TLS share their connections
	Affinity  time.Duration        // by client address; 0: none
	Cookie    bool                 // affinity by cookie
}

// Endpoint is one address of a Destination.
type Endpoint struct {
	Addr       netip.AddrPort
	Node, Zone string
	ForZones   []string // topology hints
	Draining   bool     // it is terminating and still serves
}

// Services is what is known of Services now. It may be asked from any number of goroutines, and what it returns is not
// changed later.
type Services interface {
	// Service returns a Service. It may ask the API server and wait, for a bounded time whatever the context. An error is one
	// of the API, NotFound only if the API server itself knows no such Service, or that of the context.
	Service(ctx context.Context, name service.Name) (*directory.Service, error)
	// Slices returns the EndpointSlices of a Service.
	Slices(name service.Name) []*directory.Slice
	// Version changes whenever the Service, one of its slices or a pod that one of them refers to changes, and is the same
	// while none does. It changes together with what the other methods answer, or after it, never before. 0 means that
	// nothing is known of the Service, or not when its pods change.
	Version(name service.Name) uint64
}

// Hosts is what is known of single machines now, as Services is.
type Hosts interface {
	// Pod returns a pod. It may ask the API server and wait; errors are as those of Service.
	Pod(ctx context.Context, name service.Name) (*directory.Pod, error)
	// Node returns a node. It may ask the API server and wait; errors are as those of Service.
	Node(ctx context.Context, name string) (*directory.Node, error)
}

// Objects is all that a Locator asks: Services and Hosts, with their contracts.
type Objects interface {
	Services
	Hosts
}
