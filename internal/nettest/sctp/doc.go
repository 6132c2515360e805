// Package sctp speaks SCTP in user space over raw IP sockets, for kernels that have no SCTP sockets but do filter and
// translate SCTP. The associations are pion/sctp's; this package carries their packets: it tells them apart by
// addresses and ports, and answers those that belong to none (RFC 9260, section 8.4).
//
// Raw sockets need root or CAP_NET_RAW.
package sctp
