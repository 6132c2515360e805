// Package directory keeps what proxies in user space look up for each request: Services, EndpointSlices, Pods and Nodes,
// as small structs that watches keep up to date.
//
// What the watches do not know is asked of the API server itself, because a client may name an object that it has just
// made. No object is kept: 150,000 pods take less than 60 MiB.
package directory
