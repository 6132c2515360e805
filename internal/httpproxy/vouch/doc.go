// Package vouch stands between clients and API servers, and has clients be there who they are here: it knows which client
// certificates count, tells API servers whose they are in the headers of a front proxy (X-Remote-…), passes tokens on as
// they are, and lets nobody name himself. It has what servers of that kind have in common, too: certificates that are read
// again, limits of HTTP/2, and an end in order.
package vouch
