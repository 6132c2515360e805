// Package relay moves bytes between clients and backends in user space: TCP connections and UDP sessions. It chooses no
// backends and opens no listeners; whoever uses it does.
package relay
