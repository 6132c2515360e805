// Package apiserverlb is the load balancer in front of the API servers of a cluster: it wires backends that are found, checked
// and chosen (packages of internal/backend) to the relay of their connections (relay/loop) or of their requests (https), moves
// connections in a paced way, and shows what it does.
package apiserverlb
