// Package inspect lets people see into a running kube-proxy: it serves its state over a unix socket, asks for it, and
// writes it down as a table.
package inspect
