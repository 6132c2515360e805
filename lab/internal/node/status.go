package node

import (
	"fmt"
	"net/netip"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// record is what the agent knows of a pod; statusOf makes a PodStatus of it.
type record struct {
	startTime       metav1.Time
	podIPs, hostIPs []netip.Addr
	sandbox         bool                          // the pod's network is there
	initialized     bool                          // all init containers are done, sidecars started
	ended           bool                          // nothing of the pod runs or will run
	containers      map[string]v1.ContainerStatus // by name, init containers too
	reason, message string                        // why the pod failed as a whole; empty if it did not
}

// ownConditions are those that the agent writes; others belong to others.
var ownConditions = [...]v1.PodConditionType{v1.PodReadyToStartContainers, v1.PodInitialized, v1.ContainersReady, v1.PodReady}

func isOwn(t v1.PodConditionType) bool { return slices.Contains(ownConditions[:], t) }

// statusOf returns the status of a pod. What the agent does not own is kept as it is in the pod; times of conditions
// that did not change are kept too.
func statusOf(pod *v1.Pod, r *record, now time.Time) v1.PodStatus {
	s := *pod.Status.DeepCopy()
	s.ObservedGeneration = pod.Generation
	s.StartTime = &r.startTime
	s.ContainerStatuses = r.statuses(pod.Spec.Containers)
	s.InitContainerStatuses = r.statuses(pod.Spec.InitContainers)
	s.Phase = phaseOf(pod, r)
	s.Reason, s.Message = r.reason, r.message
	ips := withIPs(&v1.Pod{}, r.podIPs, r.hostIPs).Status
	s.PodIP, s.PodIPs, s.HostIP, s.HostIPs = ips.PodIP, ips.PodIPs, ips.HostIP, ips.HostIPs
	s.Conditions = slices.DeleteFunc(s.Conditions, func(c v1.PodCondition) bool { return isOwn(c.Type) })
	for _, c := range conditionsOf(pod, r, s.Phase) {
		c.ObservedGeneration = pod.Generation
		c.LastTransitionTime = metav1.NewTime(now.Truncate(time.Second))
		if old := conditionOf(pod.Status.Conditions, c.Type); old != nil && old.Status == c.Status {
			c.LastTransitionTime = old.LastTransitionTime
		}
		s.Conditions = append(s.Conditions, c)
	}
	return s
}

func (r *record) statuses(containers []v1.Container) []v1.ContainerStatus {
	var all []v1.ContainerStatus
	for _, c := range containers {
		all = append(all, r.containers[c.Name])
	}
	return all
}

func conditionOf(all []v1.PodCondition, t v1.PodConditionType) *v1.PodCondition {
	for i := range all {
		if all[i].Type == t {
			return &all[i]
		}
	}
	return nil
}

// phaseOf follows the kubelet's getPhase.
func phaseOf(pod *v1.Pod, r *record) v1.PodPhase {
	if r.reason != "" {
		return v1.PodFailed
	}
	var waiting, running, failed, stopped int
	for _, c := range r.statuses(pod.Spec.Containers) {
		t := c.State.Terminated
		if c.State.Waiting != nil {
			t = c.LastTerminationState.Terminated
		}
		switch {
		case c.State.Running != nil:
			running++
		case t == nil:
			waiting++
		case t.ExitCode != 0:
			failed++
		}
		if t != nil {
			stopped++
		}
	}
	switch {
	case r.ended && failed == 0 && stopped == len(pod.Spec.Containers):
		return v1.PodSucceeded
	case r.ended:
		return v1.PodFailed
	case waiting > 0 || !r.initialized:
		return v1.PodPending
	}
	// Containers that have all ended but not for good are about to be started again.
	return v1.PodRunning
}

// conditionsOf returns the agent's conditions, without times.
func conditionsOf(pod *v1.Pod, r *record, phase v1.PodPhase) []v1.PodCondition {
	containers := containersReady(pod, r, phase)
	ready := containers
	ready.Type = v1.PodReady
	if containers.Status == v1.ConditionTrue {
		for _, g := range pod.Spec.ReadinessGates {
			c := conditionOf(pod.Status.Conditions, g.ConditionType)
			if c == nil || c.Status != v1.ConditionTrue {
				ready.Status, ready.Reason = v1.ConditionFalse, "ReadinessGatesNotReady"
				ready.Message = fmt.Sprintf("readiness gate %q is not true", g.ConditionType)
			}
		}
	}
	initialized := v1.PodCondition{Type: v1.PodInitialized, Status: status(r.initialized || phase == v1.PodSucceeded)}
	switch {
	case phase == v1.PodSucceeded:
		initialized.Reason = "PodCompleted"
	case !r.initialized:
		initialized.Reason = "ContainersNotInitialized"
	}
	return []v1.PodCondition{
		{Type: v1.PodReadyToStartContainers, Status: status(r.sandbox)}, initialized, containers, ready,
	}
}

func containersReady(pod *v1.Pod, r *record, phase v1.PodPhase) v1.PodCondition {
	c := v1.PodCondition{Type: v1.ContainersReady, Status: v1.ConditionFalse}
	var unready []string
	for i, s := range append(r.statuses(pod.Spec.Containers), r.statuses(sidecarsOf(pod))...) {
		if s.Name == "" && i < len(pod.Spec.Containers) {
			s.Name = pod.Spec.Containers[i].Name
		}
		if !s.Ready {
			unready = append(unready, s.Name)
		}
	}
	switch {
	case phase == v1.PodSucceeded:
		c.Reason = "PodCompleted"
	case phase == v1.PodFailed:
		c.Reason = "PodFailed"
	case len(unready) > 0:
		c.Reason, c.Message = "ContainersNotReady", fmt.Sprintf("containers with unready status: %v", unready)
	default:
		c.Status = v1.ConditionTrue
	}
	return c
}

// sidecarsOf returns the init containers that run beside the others.
func sidecarsOf(pod *v1.Pod) []v1.Container {
	var all []v1.Container
	for _, c := range pod.Spec.InitContainers {
		if isSidecar(&c) {
			all = append(all, c)
		}
	}
	return all
}

func isSidecar(c *v1.Container) bool {
	return c.RestartPolicy != nil && *c.RestartPolicy == v1.ContainerRestartPolicyAlways
}

func status(b bool) v1.ConditionStatus {
	if b {
		return v1.ConditionTrue
	}
	return v1.ConditionFalse
}
