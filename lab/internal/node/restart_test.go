package node_test

import (
	"context"
	"net/netip"
	"strings"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"varco.dev/lab/internal/node"
)

// once returns a pod that is run once and has no probe.
func (w *world) once(name, mode string) *v1.Pod {
	pod := w.pod(name, mode)
	pod.Spec.RestartPolicy = v1.RestartPolicyNever
	pod.Spec.Containers[0].ReadinessProbe = nil
	return pod
}

func hasPhase(phase v1.PodPhase) func(*v1.Pod) bool {
	return func(p *v1.Pod) bool { return p != nil && p.Status.Phase == phase }
}

func TestEndedPodStaysAfterRestart(t *testing.T) {
	w := newWorld(t)
	w.create(w.once("job", "succeed"))
	w.await("job", "succeeded", hasPhase(v1.PodSucceeded))
	w.end()
	before := len(w.client.Actions())
	w.start()
	w.create(w.pod("web", "serve"))
	w.await("web", "ready", isReady) // the agent has seen job before, as it is older
	for _, a := range w.client.Actions()[before:] {
		if p, ok := a.(interface{ GetName() string }); ok && a.GetVerb() == "patch" && p.GetName() == "job" {
			t.Errorf("the next agent changed the status of a pod that had ended: %v", a)
		}
	}
	w.delete("job", 30)
	w.await("job", "gone", isGone)
}

func TestNotRunAgainAfterRestart(t *testing.T) {
	running := v1.ContainerState{Running: &v1.ContainerStateRunning{}}
	ended := v1.ContainerState{Terminated: &v1.ContainerStateTerminated{Reason: "Completed"}}
	tests := []struct {
		name   string
		policy v1.RestartPolicy
		state  v1.ContainerState
		want   v1.PodPhase
	}{
		{"never-running", v1.RestartPolicyNever, running, v1.PodFailed},
		{"never-ended", v1.RestartPolicyNever, ended, v1.PodSucceeded},
		{"on-failure-ended", v1.RestartPolicyOnFailure, ended, v1.PodSucceeded},
	}
	w := newWorld(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod := w.once(tt.name, "succeed")
			pod.Spec.RestartPolicy = tt.policy
			pod.Status.Phase = v1.PodRunning
			pod.Status.ContainerStatuses = []v1.ContainerStatus{{Name: "main", State: tt.state}}
			w.create(pod)
			got := w.await(tt.name, string(tt.want), hasPhase(tt.want))
			if w.log(tt.name) != "" || got.Status.ContainerStatuses[0].RestartCount != 0 {
				t.Errorf("ran again: %+v\n%s", got.Status.ContainerStatuses[0], w.log(tt.name))
			}
		})
	}
}

func TestRestartGivesOtherAddresses(t *testing.T) {
	w := newWorld(t)
	w.create(w.pod("web", "serve"))
	w.await("web", "ready", isReady)
	w.restart()
	w.await("web", "ready at another address", func(p *v1.Pod) bool {
		return isReady(p) && p.Status.PodIP == "10.244.1.3" && p.Status.ContainerStatuses[0].RestartCount == 1
	})
}

func TestAvoid(t *testing.T) {
	a, err := node.NewAddresses([]string{"fd00:244:0:1::/64", "10.244.1.0/29"})
	if err != nil {
		t.Fatal(err)
	}
	node.Avoid(a, map[netip.Addr]bool{netip.MustParseAddr("10.244.1.4"): true, netip.MustParseAddr("fd00:244:0:1::2"): true})
	for _, want := range []int{5, 6, 3, 2, 4} {
		if got, err := node.Take(a); err != nil || got != want {
			t.Errorf("got %d, %v; want %d", got, err, want)
		}
	}
}

func TestNodeMadeAgain(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	w.create(w.pod("old", "serve"))
	w.await("old", "ready", isReady)
	nodes := w.client.CoreV1().Nodes()
	if err := nodes.Delete(ctx, "node-1", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	var again *v1.Node
	eventually(t, "the agent makes its Node again", func() (ok bool) {
		n, err := nodes.Get(ctx, "node-1", metav1.GetOptions{})
		again = n
		return err == nil
	})
	again.Spec.PodCIDRs = []string{"10.244.7.0/24", "fd00:244:0:7::/64"}
	if _, err := nodes.Update(ctx, again, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	// Pods that the agent sees before the Node have addresses of the old networks.
	eventually(t, "a new pod has an address of the new network", func() bool {
		pod := w.pod("new", "serve")
		w.create(pod)
		got := w.await("new", "ready", isReady)
		w.delete("new", 1)
		w.await("new", "gone", isGone)
		return strings.HasPrefix(got.Status.PodIP, "10.244.7.")
	})
}
