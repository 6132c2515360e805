package node_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"varco.dev/lab/internal/node"
)

// states of containers, as words in the table below.
var states = map[string]v1.ContainerStatus{
	"waiting": {State: v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "ContainerCreating"}}},
	"backoff": {
		State:                v1.ContainerState{Waiting: &v1.ContainerStateWaiting{Reason: "CrashLoopBackOff"}},
		LastTerminationState: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: 1}},
	},
	"running": {State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}},
	"ready":   {State: v1.ContainerState{Running: &v1.ContainerStateRunning{}}, Ready: true},
	"ok":      {State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{}}},
	"failed":  {State: v1.ContainerState{Terminated: &v1.ContainerStateTerminated{ExitCode: 2}}},
}

func TestStatusOf(t *testing.T) {
	tests := []struct {
		name       string
		containers string // one word of states for each
		ended      bool
		gate       v1.ConditionStatus // of a readiness gate; empty: no gate, Unknown: condition missing
		phase      v1.PodPhase
		ready      v1.ConditionStatus
		reason     string // of Ready
	}{
		{"starting", "waiting ready", false, "", v1.PodPending, v1.ConditionFalse, "ContainersNotReady"},
		{"running", "running ready", false, "", v1.PodRunning, v1.ConditionFalse, "ContainersNotReady"},
		{"ready", "ready ready", false, "", v1.PodRunning, v1.ConditionTrue, ""},
		{"gate missing", "ready", false, v1.ConditionUnknown, v1.PodRunning, v1.ConditionFalse, "ReadinessGatesNotReady"},
		{"gate false", "ready", false, v1.ConditionFalse, v1.PodRunning, v1.ConditionFalse, "ReadinessGatesNotReady"},
		{"gate true", "ready", false, v1.ConditionTrue, v1.PodRunning, v1.ConditionTrue, ""},
		{"crash loop", "backoff", false, "", v1.PodRunning, v1.ConditionFalse, "ContainersNotReady"},
		{"one ended", "failed ready", false, "", v1.PodRunning, v1.ConditionFalse, "ContainersNotReady"},
		{"about to restart", "ok failed", false, "", v1.PodRunning, v1.ConditionFalse, "ContainersNotReady"},
		{"succeeded", "ok ok", true, "", v1.PodSucceeded, v1.ConditionFalse, "PodCompleted"},
		{"failed", "ok failed", true, "", v1.PodFailed, v1.ConditionFalse, "PodFailed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Generation: 3}}
			pod.Status.Conditions = []v1.PodCondition{{Type: v1.PodScheduled, Status: v1.ConditionTrue}}
			for i := range strings.Fields(tt.containers) {
				pod.Spec.Containers = append(pod.Spec.Containers, v1.Container{Name: string(rune('a' + i))})
			}
			if tt.gate != "" {
				pod.Spec.ReadinessGates = []v1.PodReadinessGate{{ConditionType: "gate"}}
				if tt.gate != v1.ConditionUnknown {
					pod.Status.Conditions = append(pod.Status.Conditions, v1.PodCondition{Type: "gate", Status: tt.gate})
				}
			}
			r := node.FirstRecord(pod)
			r.Set(true, true, tt.ended)
			for i, word := range strings.Fields(tt.containers) {
				s := states[word]
				s.Name = string(rune('a' + i))
				r.Containers()[s.Name] = s
			}
			got := node.StatusOf(pod, &r, time.Now())
			ready := condition(got, v1.PodReady)
			if got.Phase != tt.phase || ready.Status != tt.ready || ready.Reason != tt.reason {
				t.Errorf("got %s, Ready %s %s; want %s, %s %s", got.Phase, ready.Status, ready.Reason, tt.phase, tt.ready, tt.reason)
			}
			if condition(got, v1.PodScheduled).Status != v1.ConditionTrue {
				t.Error("the scheduler's condition is gone")
			}
			if got.ObservedGeneration != 3 {
				t.Errorf("observed generation %d, want 3", got.ObservedGeneration)
			}
		})
	}
}

func condition(s v1.PodStatus, t v1.PodConditionType) v1.PodCondition {
	for _, c := range s.Conditions {
		if c.Type == t {
			return c
		}
	}
	return v1.PodCondition{}
}

func TestStatusKeepsTimes(t *testing.T) {
	pod := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "a"}}}}
	r := node.FirstRecord(pod)
	r.Set(true, true, false)
	first := time.Unix(1000, 0)
	pod.Status = node.StatusOf(pod, &r, first)
	r.Containers()["a"] = states["ready"]
	got := node.StatusOf(pod, &r, time.Unix(2000, 0))
	times := map[v1.PodConditionType]int64{}
	for _, c := range got.Conditions {
		times[c.Type] = c.LastTransitionTime.Unix()
	}
	want := map[v1.PodConditionType]int64{
		v1.PodReadyToStartContainers: 1000, v1.PodInitialized: 1000, v1.ContainersReady: 2000, v1.PodReady: 2000,
	}
	if d := cmp.Diff(want, times); d != "" {
		t.Errorf("times of conditions (-want +got)\n%s", d)
	}
}

func TestStatusPatch(t *testing.T) {
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{UID: "u"}, Spec: v1.PodSpec{Containers: []v1.Container{{Name: "a"}}}}
	pod.Status.Conditions = []v1.PodCondition{{Type: "other", Status: v1.ConditionTrue}}
	r := node.FirstRecord(pod)
	want := node.StatusOf(pod, &r, time.Unix(1000, 0))
	patch, err := node.StatusPatch(pod, want)
	if err != nil || patch == nil {
		t.Fatalf("patch %s, error %v", patch, err)
	}
	if s := string(patch); !strings.Contains(s, `"uid":"u"`) || strings.Contains(s, "other") {
		t.Errorf("patch %s; want the UID in it and no condition of others", s)
	}
	pod.Status = want
	if patch, err := node.StatusPatch(pod, want); patch != nil || err != nil {
		t.Errorf("nothing changed: patch %s, error %v; want none", patch, err)
	}
}

func TestRecordOfPodThatRanBefore(t *testing.T) {
	pod := &v1.Pod{Spec: v1.PodSpec{Containers: []v1.Container{{Name: "a"}, {Name: "b"}}}}
	running := states["ready"]
	running.Name, running.RestartCount = "a", 2
	pod.Status.ContainerStatuses = []v1.ContainerStatus{running}
	r := node.FirstRecord(pod)
	a, b := r.Containers()["a"], r.Containers()["b"]
	if a.RestartCount != 3 || a.LastTerminationState.Terminated == nil || a.LastTerminationState.Terminated.ExitCode != 137 {
		t.Errorf("container that ran: %+v; want 3 restarts and a last state with exit code 137", a)
	}
	if b.RestartCount != 0 || b.LastTerminationState.Terminated != nil {
		t.Errorf("container that did not run: %+v; want no restart", b)
	}
}
