// Package discovery finds the addresses of API servers: those that the configuration lists, those that names stand for, and
// those that the EndpointSlices of default/kubernetes name.
//
// It never goes back to nothing. A source that fails, or answers that there is none, is taken for broken, and what it said
// last counts on; one that names fewer than before is believed. What was found is kept in a file, so that the next start
// does not depend on a DNS server or an API server that is away.
package discovery
