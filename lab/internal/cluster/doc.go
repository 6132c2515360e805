// Package cluster runs a lab: a supervisor process with namespaces of its own, in which the network, the control plane
// and the nodes live, and what the host sees of it: a folder with its state, and the verbs up, down, status, exec.
//
//	up ──starts──► supervisor (own PID and mount namespace; its death ends all below)
//	                 ├─ network    nettest.World, each namespace a file in DIR/netns
//	                 ├─ components etcd, kube-apiserver, … in their control plane's network namespace
//	                 ├─ nodes      node agents, which run the pods
//	                 ├─ forwarder  127.0.0.1:PORT ► the API servers
//	                 ├─ routes     Node objects ► routes of the control planes to the pods
//	                 └─ control    DIR/control.sock: state of the components, stop and start
package cluster
