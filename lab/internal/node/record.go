package node

import (
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// firstRecord is the record of a pod that the agent sees for the first time. If the pod ran before, under an agent that
// was killed, its containers count as killed with it. One that is not to be started again has ended.
func firstRecord(obj *v1.Pod) record {
	r := record{startTime: metav1.Now().Rfc3339Copy(), containers: map[string]v1.ContainerStatus{}}
	if obj.Status.StartTime != nil {
		r.startTime = *obj.Status.StartTime
	}
	old := map[string]v1.ContainerStatus{}
	for _, s := range append(append([]v1.ContainerStatus(nil), obj.Status.InitContainerStatuses...), obj.Status.ContainerStatuses...) {
		old[s.Name] = s
	}
	for i := range obj.Spec.Containers {
		r.add(&obj.Spec.Containers[i], old, obj)
	}
	done := r.allDone(obj)
	for i := range obj.Spec.InitContainers {
		c := &obj.Spec.InitContainers[i]
		r.add(c, old, obj)
		// The files that an init container made are gone with the agent: what follows it needs it again.
		if s := r.containers[c.Name]; !done && s.State.Terminated != nil && s.State.Terminated.ExitCode == 0 {
			s.LastTerminationState, s.State = s.State, waiting(obj, i)
			s.RestartCount++
			r.containers[c.Name] = s
		}
	}
	return r
}

// add adds a container as it is at the agent's start.
func (r *record) add(c *v1.Container, old map[string]v1.ContainerStatus, obj *v1.Pod) {
	s := v1.ContainerStatus{Name: c.Name, Image: c.Image, Started: new(bool), State: waiting(obj, len(r.containers))}
	if o, ok := old[c.Name]; ok {
		s.RestartCount, s.LastTerminationState = o.RestartCount, o.LastTerminationState
		ended := o.State.Terminated
		if o.State.Running != nil {
			ended = lostContainer(o.State.Running.StartedAt)
		}
		again := s.LastTerminationState.Terminated != nil // it waited to be started again
		switch {
		case ended != nil && !restarts(policyOf(obj, c), ended.ExitCode):
			s.State, again = v1.ContainerState{Terminated: ended}, false
			s.ContainerID, s.ImageID = o.ContainerID, o.ImageID
		case ended != nil:
			s.LastTerminationState.Terminated, again = ended, true
		}
		if again {
			s.RestartCount++
		}
	}
	r.containers[c.Name] = s
}

// allDone says whether no container of the pod is to be started again.
func (r *record) allDone(obj *v1.Pod) bool {
	for _, c := range obj.Spec.Containers {
		if r.containers[c.Name].State.Terminated == nil {
			return false
		}
	}
	return true
}

func waiting(obj *v1.Pod, i int) v1.ContainerState {
	reason := "ContainerCreating"
	if len(obj.Spec.InitContainers) > 0 && i > 0 {
		reason = "PodInitializing"
	}
	return v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: reason}}
}

func lostContainer(started metav1.Time) *v1.ContainerStateTerminated {
	return &v1.ContainerStateTerminated{
		ExitCode: 137, Reason: "ContainerStatusUnknown", StartedAt: started, FinishedAt: metav1.Now().Rfc3339Copy(),
		Message: "the container ended with the node agent",
	}
}

// policyOf is how a container of a pod is restarted. Sidecars always are; init containers until they succeed, unless the
// pod is never to be tried twice.
func policyOf(obj *v1.Pod, c *v1.Container) v1.RestartPolicy {
	policy := obj.Spec.RestartPolicy
	for i := range obj.Spec.InitContainers {
		init := &obj.Spec.InitContainers[i]
		if init.Name != c.Name {
			continue
		}
		if isSidecar(init) {
			return v1.RestartPolicyAlways
		}
		if policy == v1.RestartPolicyAlways {
			return v1.RestartPolicyOnFailure
		}
	}
	return policy
}
