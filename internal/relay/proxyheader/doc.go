// Package proxyheader reads and writes the header of the PROXY protocol, versions 1 and 2, by which a proxy in front
// tells who the client is. It works on byte slices alone: who reads from a socket asks after every read whether the
// header is whole, and how long it is.
//
// The rules are those of https://www.haproxy.org/download/3.0/doc/proxy-protocol.txt ("the specification").
package proxyheader
