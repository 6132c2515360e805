// Package httpproxy passes HTTP on: requests and answers as streams, in both directions at once, protocol upgrades, and
// errors as the Status objects of Kubernetes. It chooses no targets and opens no listeners; whoever uses it does.
//
// It is not httputil.ReverseProxy because of what that leaves to others or costs: answers that are cut when they should end
// (Drain), errors without a body, a buffer of 32 KiB for each open watch, and a write of 16 KiB for each TLS record of a
// large answer, which is most of what such an answer costs.
package httpproxy
