// Package balance sends a request to one of the endpoints of a destination, and to another one if that fails.
//
// A request is sent again only if that cannot do harm: as long as nothing of it has left for the target, which is so when no
// connection could be made or when a connection broke before the first byte, or if its method is idempotent and no body was
// read (RFC 9110, 9.2.2). net/http's Transport does a part of this by itself, on connections that it has used before and that
// the target has closed meanwhile; such are no fault of the endpoint and are not counted as one. It takes the header
// Idempotency-Key for its sender's word that a request may be sent twice.
//
// Whether something of a request was sent is known only of connections that count: those of which one, from TLS downwards
// (NetConn), has a method Written() int64. Of others it is assumed as soon as they stand.
package balance
