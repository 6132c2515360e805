// Package nettest builds networks out of network namespaces and sends real packets through them: the worlds that the
// packet tests and the lab run in. It is for tests only; the product never imports it.
package nettest
