package node_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	v1 "k8s.io/api/core/v1"
	"varco.dev/lab/internal/node"
)

func TestContainerIsOnItsOwn(t *testing.T) {
	w := newWorld(t)
	name := strings.Repeat("a", 62) + "-" + strings.Repeat("b", 20) // longer than a host name
	w.create(w.pod(name, "serve"))
	w.await(name, "ready", isReady)
	url := "http://10.244.1.2:8080"
	if got := w.get(url + "/file?path=/proc/1/cmdline"); !strings.Contains(got, imageCommand) {
		t.Errorf("process 1 of the container is %q, want its program", got)
	}
	if got := w.get(url + "/file?path=/proc/sys/kernel/hostname"); got != strings.Repeat("a", 62)+"\n" {
		t.Errorf("host name %q", got)
	}
	if got := w.get(url + "/file?path=/proc/mounts"); strings.Contains(got, w.dir+"/state") {
		t.Errorf("the container has mounts of the agent:\n%s", got)
	}
	if got := w.get(url + "/file?path=/sys/class/net/"); !strings.Contains(got, "eth0") {
		t.Errorf("/sys/class/net is %q, want eth0 in it", got)
	}
	mark := fmt.Sprintf("varco-lab-test-%d", os.Getpid())
	for path, ok := range map[string]bool{
		"/dev/shm/" + mark: true, "/dev/" + mark: true, "/dev/null": true, "/proc/sys/net/ipv4/ip_forward": false,
		"/sys/" + mark: false, "/.host/proc/self/comm": false, "/.host/dev/" + mark: false,
	} {
		if got := w.get(url + "/write?path=" + path); (got == "<nil>") != ok {
			t.Errorf("write %s: %s; want success: %v", path, got, ok)
		}
	}
	for _, path := range []string{"/dev/shm/" + mark, "/dev/" + mark} {
		if os.Remove(path) == nil {
			t.Errorf("%s is on the machine", path)
		}
	}
}

func TestSecurityContext(t *testing.T) {
	yes, no, user := true, false, int64(1234)
	w := newWorld(t)
	tests := []struct {
		name          string
		context       *v1.SecurityContext
		effective     string // as in /proc/self/status
		uid           string
		rootWritable  bool
		sysctlAllowed bool
	}{
		{"usual", nil, "00000000a80425fb", "0", true, false},
		{"net-admin", &v1.SecurityContext{
			ReadOnlyRootFilesystem: &yes, AllowPrivilegeEscalation: &no,
			Capabilities: &v1.Capabilities{Drop: []v1.Capability{"ALL"}, Add: []v1.Capability{"NET_ADMIN"}},
		}, "0000000000001000", "0", false, false},
		{"user", &v1.SecurityContext{RunAsUser: &user}, "0000000000000000", "1234", false, false},
		{"privileged", &v1.SecurityContext{Privileged: &yes}, "", "0", true, true},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			pod := w.pod(tt.name, "serve")
			pod.Spec.Containers[0].SecurityContext = tt.context
			w.create(pod)
			url := "http://" + w.await(tt.name, "ready", isReady).Status.PodIP + ":8080"
			status := w.get(url + "/file?path=/proc/self/status")
			for _, want := range []string{"CapEff:\t" + tt.effective, "Uid:\t" + tt.uid + "\t"} {
				if !strings.Contains(status, want) {
					t.Errorf("no %q in\n%s", want, status)
				}
			}
			for path, want := range map[string]bool{"/new": tt.rootWritable, "/proc/sys/net/ipv4/ip_forward": tt.sysctlAllowed} {
				// A sysctl does not take the x that is written: what counts is whether it can be opened.
				got := w.get(url + "/write?path=" + path)
				if ok := got == "<nil>" || strings.Contains(got, "invalid"); ok != want {
					t.Errorf("write %s: %s; want success: %v", path, got, want)
				}
			}
		})
	}
}

func TestUnknownCapability(t *testing.T) {
	c := &v1.Container{SecurityContext: &v1.SecurityContext{Capabilities: &v1.Capabilities{Add: []v1.Capability{"FLY"}}}}
	if _, err := node.SecurityOf(&v1.Pod{}, c); err == nil {
		t.Error("no error")
	}
}

func TestDeadline(t *testing.T) {
	w := newWorld(t)
	deadline := int64(8) // long enough for a process to start and end on a busy machine
	ends, runs := w.once("ends", "succeed"), w.once("runs", "serve")
	ends.Spec.ActiveDeadlineSeconds, runs.Spec.ActiveDeadlineSeconds = &deadline, &deadline
	w.create(ends)
	w.await("ends", "succeeded", hasPhase(v1.PodSucceeded))
	w.create(runs)
	got := w.await("runs", "failed", hasPhase(v1.PodFailed)) // its deadline is after that of the other
	if got.Status.Reason != "DeadlineExceeded" {
		t.Errorf("reason %q, want DeadlineExceeded", got.Status.Reason)
	}
	w.await("ends", "succeeded", hasPhase(v1.PodSucceeded))
}

func TestPreStop(t *testing.T) {
	w := newWorld(t)
	pod := w.pod("web", "serve")
	pod.Spec.Containers[0].Lifecycle = &v1.Lifecycle{PreStop: &v1.LifecycleHandler{
		Exec: &v1.ExecAction{Command: []string{"sh", "-c", "echo preStop > /proc/1/fd/1"}},
	}}
	w.create(pod)
	w.await("web", "ready", isReady)
	w.delete("web", 30)
	w.await("web", "gone", isGone)
	before, after, ok := strings.Cut(w.log("web"), "preStop")
	if !ok || strings.Contains(before, "SIGTERM") || !strings.Contains(after, "SIGTERM seen") {
		t.Errorf("want preStop and then SIGTERM in log:\n%s", w.log("web"))
	}
}

func TestSlowProbeLeavesNoProcess(t *testing.T) {
	w := newWorld(t)
	pod := w.pod("web", "serve")
	pod.Spec.Containers[0].LivenessProbe = &v1.Probe{PeriodSeconds: 3, TimeoutSeconds: 1, FailureThreshold: 100, ProbeHandler: v1.ProbeHandler{
		Exec: &v1.ExecAction{Command: []string{"sh", "-c", "sleep 30; true"}},
	}}
	w.create(pod)
	w.await("web", "ready", isReady)
	eventually(t, "the probe runs", func() bool { return len(imageProcesses(w.dir)) == 3 })
	eventually(t, "the probe is over", func() bool { return len(imageProcesses(w.dir)) == 1 })
}

func TestBackoffCount(t *testing.T) {
	w := newWorld(t)
	pod := w.pod("crash", "fail")
	pod.Spec.Containers[0].ReadinessProbe = nil
	w.create(pod)
	w.await("crash", "in back-off", func(p *v1.Pod) bool {
		s := p.Status.ContainerStatuses
		return len(s) > 0 && s[0].RestartCount == 2 && s[0].State.Waiting != nil
	})
	w.delete("crash", 5)
	w.await("crash", "gone", isGone)
	if n := w.last("crash").Status.ContainerStatuses[0].RestartCount; n != 2 {
		t.Errorf("restarts: %d, want 2", n)
	}
}

func TestPruneLogs(t *testing.T) {
	dir := t.TempDir()
	for i := range 510 {
		path := filepath.Join(dir, fmt.Sprintf("%03d.log", i))
		if err := os.WriteFile(path, nil, 0o644); err != nil {
			t.Fatal(err)
		}
		at := time.Unix(int64(i), 0)
		if err := os.Chtimes(path, at, at); err != nil {
			t.Fatal(err)
		}
	}
	if err := node.PruneLogs(dir, func(name string) bool { return name == "000.log" }); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]bool{"000.log": true, "001.log": false, "009.log": false, "010.log": true} {
		if _, err := os.Stat(filepath.Join(dir, name)); (err == nil) != want {
			t.Errorf("%s is there: %v, want %v", name, err == nil, want)
		}
	}
}
