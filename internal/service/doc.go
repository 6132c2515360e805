// Package service is the desired state of the cluster's Services: what should be reachable at which address, and through
// which backends. It is pure: no client, no clock, no goroutine, no pointer to an API object.
//
// The words: a Service has ports; each Port, per IP family, has frontends (the addresses clients use) and backends (the
// endpoints that answer). A Table takes what the API says and tells, as Changes, what is different now.
package service
