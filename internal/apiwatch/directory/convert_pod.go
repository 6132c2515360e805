package directory

import (
	"hash/maphash"
	"slices"

	corev1 "k8s.io/api/core/v1"

	"varco.dev/internal/apiwatch/checked"
	"varco.dev/internal/service"
)

// PodOf converts a Pod. Parts that are not valid are left out and named in problems; see BackendTLS for its annotations.
func PodOf(p *corev1.Pod) (out *Pod, problems []error) {
	e, problems := entryOf(p)
	return &e.Pod, problems
}

func entryOf(p *corev1.Pod) (out *podEntry, problems []error) {
	c := checked.Fields{}
	out = &podEntry{Pod: Pod{
		Name:       service.Name{Namespace: checked.Shared(p.Namespace), Name: p.Name},
		UID:        string(p.UID),
		Addrs:      c.Addrs("status.podIPs", podIPs(p)),
		Terminated: p.Status.Phase == corev1.PodSucceeded || p.Status.Phase == corev1.PodFailed,
		Ports:      podPorts(&c, &p.Spec),
		Backend:    backendTLS(&c, p.Annotations),
	}}
	return out, c.Problems
}

func podIPs(p *corev1.Pod) []string {
	if len(p.Status.PodIPs) == 0 {
		return []string{p.Status.PodIP} // of old API servers
	}
	out := make([]string, 0, len(p.Status.PodIPs))
	for _, ip := range p.Status.PodIPs {
		out = append(out, ip.IP)
	}
	return out
}

// podPorts returns the ports of containers, then those of init containers that go on beside them (KEP-753).
func podPorts(c *checked.Fields, spec *corev1.PodSpec) (out []PodPort) {
	for i := range spec.Containers {
		out = containerPorts(c, out, &spec.Containers[i], false)
	}
	for i := range spec.InitContainers {
		if checked.Deref(spec.InitContainers[i].RestartPolicy, "") == corev1.ContainerRestartPolicyAlways {
			out = containerPorts(c, out, &spec.InitContainers[i], true)
		}
	}
	return slices.Clip(out)
}

func containerPorts(c *checked.Fields, out []PodPort, of *corev1.Container, sidecar bool) []PodPort {
	for _, p := range of.Ports {
		protocol, ok := c.Protocol("spec.containers.ports.protocol", p.Protocol)
		if n, valid := c.Port("spec.containers.ports.containerPort", p.ContainerPort); ok && valid {
			out = append(out, PodPort{Name: checked.Shared(p.Name), Number: n, Protocol: protocol, Sidecar: sidecar})
		}
	}
	return out
}

// recentPorts lets pods share their lists of ports, which are the same for all that are made from a template. It remembers
// few, so it needs no care. It is not safe for concurrent use.
type recentPorts struct {
	seed  maphash.Seed
	lists [1024][]PodPort
}

func newRecentPorts() *recentPorts { return &recentPorts{seed: maphash.MakeSeed()} }

func (r *recentPorts) share(ports []PodPort) []PodPort {
	hash := uint64(len(ports))
	for _, p := range ports {
		hash = hash*31 + maphash.Comparable(r.seed, p)
	}
	at := &r.lists[hash%uint64(len(r.lists))]
	if !slices.Equal(*at, ports) {
		*at = ports
	}
	return *at
}
