// Package fakeapi is an API server without objects: it answers at once, by TLS with HTTP/1.1 or HTTP/2, so that what a
// proxy in front of it costs can be told from what the server costs.
package fakeapi
