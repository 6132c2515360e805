// Package load is the client side of the lab's test server: it sends requests by any of its protocols, from any network
// namespace, and counts what came back, from which pod, and what failed.
package load
