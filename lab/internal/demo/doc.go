// Package demo shows the whole of it in one command: a lab, the node data plane on each of its nodes, Services of all
// kinds, requests to them from everywhere, and what becomes of requests while pods come and go.
package demo
