// Package world builds the machine that a proxy under test serves: a node, the pod of a client and pods that hold all
// endpoints, as network namespaces that nobody else sees.
package world
