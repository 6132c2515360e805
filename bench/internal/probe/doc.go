// Package probe opens very short connections from a network namespace and says who answered, with as little of the Go
// runtime in between as can be: blocking system calls on one thread.
package probe
