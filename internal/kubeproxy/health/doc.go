// Package health answers those who ask whether to send traffic to this node: load balancers by Service, and probes of the
// proxy itself.
package health
