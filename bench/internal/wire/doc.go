// Package wire measures what carries TCP connections without looking into them: a client and a server of the least that can
// be said on a connection, by system calls alone, so that the machine is left to what stands between them.
package wire
