// Package kernel is the door to Linux for all that is not part of a data plane of its own: addresses of the node, tracked
// connections and the limits of tracking, what other proxies have left behind, and the error for what a kernel cannot do.
package kernel
