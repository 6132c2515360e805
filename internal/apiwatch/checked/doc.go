// Package checked reads fields of Kubernetes objects. What comes out is valid; what is not is left out and noted, so that
// the rest of an object can be served.
package checked
