// Package handover passes the listening sockets of a load balancer on: from a process to the one that takes its place,
// so that no connection is refused between them, and from systemd, which may hold them while no process runs. It also
// tells systemd how the process fares.
package handover
