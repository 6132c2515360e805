// Package kernel is the door to Linux for all that is not part of a data plane of its own: addresses of the node, and
// the error for what a kernel cannot do.
package kernel
