// Package node is the node agent of the lab: a small kubelet. It registers a Node, keeps the routes to the other nodes'
// pods, makes each Pod bound to the node a network namespace with processes in it, probes them, ends them gracefully,
// reports their status and serves the kubelet's HTTPS port.
//
// The way of a pod through the files: agent.go sees it and gives it a worker (pod.go), which makes the network
// (sandbox.go) and the volumes (volumes.go, payload.go), and runs containers (container.go) as processes (process.go) in
// a file system of their own (root.go, dev.go) with the rights that their securityContext gives (security.go). A
// container's first process is this program, which mounts what only it can and becomes the container's (init.go). What it
// prints goes to its log (logs.go) and to who is attached (streams.go, attach.go).
// A container cannot write to the machine but through hostPath volumes, and sees its processes and network interfaces only;
// unlike one of a container runtime it sees the machine's files, read-only, has no seccomp profile and no limits of
// resources, and if it is privileged has the machine's devices. Each change of its record is turned into a PodStatus (status.go) and sent
// (publish.go).
package node
