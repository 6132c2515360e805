// Package server has the API servers that the proxy is mounted in: one in front of another API server, and one that is
// aggregated by it.
package server
