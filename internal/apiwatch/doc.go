// Package apiwatch watches the API server and hands what it says to a service.Table, converted and checked. It is the only
// place that knows Kubernetes' objects; what comes out of it has valid addresses and ports only.
//
// Reflectors of client-go list and watch. Their store keeps nothing: objects are converted as they stream in, and the
// table is their only copy. What that takes, in packages feed and checked, package directory uses too.
package apiwatch
