// Package reconcile is the loop between the desired state and a data plane: it gathers changes for a moment, applies them
// together, and after a failure starts over from the whole state until the data plane has taken it.
package reconcile
