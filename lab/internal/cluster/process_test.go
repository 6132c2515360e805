package cluster_test

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"varco.dev/lab/internal/cluster"
)

// eventually asks again and again until the state is as wanted, for a minute.
func eventually(t *testing.T, what string, ask func() (state string, ok bool)) {
	t.Helper()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for end := time.After(time.Minute); ; {
		state, ok := ask()
		if ok {
			return
		}
		select {
		case <-end:
			t.Fatalf("waited for %s: %s", what, state)
		case <-tick.C:
		}
	}
}

// runPod runs a pod of the built-in image.
func runPod(t *testing.T, lab *cluster.Cluster) {
	t.Helper()
	pods := newClient(t, lab).CoreV1().Pods(metav1.NamespaceDefault)
	pod := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "echo"},
		Spec:       corev1.PodSpec{Containers: []corev1.Container{{Name: "echo", Image: "lab/echo"}}},
	}
	eventually(t, "a pod to be accepted", func() (string, bool) {
		// A new namespace has no service account for its pods at first.
		_, err := pods.Create(t.Context(), pod, metav1.CreateOptions{})
		return fmt.Sprint(err), err == nil || apierrors.IsAlreadyExists(err)
	})
	eventually(t, "the pod to run", func() (string, bool) {
		got, err := pods.Get(t.Context(), pod.Name, metav1.GetOptions{})
		if err != nil {
			return err.Error(), false
		}
		return fmt.Sprintf("%+v", got.Status), got.Status.Phase == corev1.PodRunning
	})
}

// descendants returns the command lines of all processes below one, by process id on the host.
func descendants(t *testing.T, ancestor int) map[int]string {
	t.Helper()
	parents := map[int]int{}
	stats, err := filepath.Glob("/proc/[0-9]*/stat")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range stats {
		b, err := os.ReadFile(path)
		if err != nil {
			continue // it has just ended
		}
		var pid, parent int
		var state string
		fmt.Sscan(string(b), &pid)
		fmt.Sscan(string(b[bytes.LastIndexByte(b, ')')+1:]), &state, &parent)
		parents[pid] = parent
	}
	found := map[int]string{}
	for pid := range parents {
		for p := parents[pid]; p > 0; p = parents[p] {
			if p == ancestor {
				b, _ := os.ReadFile(fmt.Sprintf("/proc/%d/cmdline", pid)) // empty for one that has just ended
				found[pid] = strings.ReplaceAll(string(b), "\x00", " ")
			}
		}
	}
	return found
}

// checkClaim sees that no process has the file whose lock claims the folder: only the supervisor may hold it.
func checkClaim(t *testing.T, dir string, processes map[int]string) {
	t.Helper()
	claim, err := os.Stat(filepath.Join(dir, "supervisor.pid"))
	if err != nil {
		t.Fatal(err)
	}
	for pid, command := range processes {
		files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range files {
			if info, err := os.Stat(file); err == nil && os.SameFile(info, claim) {
				t.Errorf("process %d has the file of the claim as %s: %s", pid, filepath.Base(file), command)
			}
		}
	}
}

// watchEnd returns what fails unless all the processes have ended. One of them must be of a pod.
func watchEnd(t *testing.T, processes map[int]string) (ended func()) {
	t.Helper()
	watched, pods := map[int]string{}, 0
	for pid, command := range processes {
		fd, err := unix.PidfdOpen(pid, 0)
		if err != nil {
			continue // it has just ended
		}
		t.Cleanup(func() { unix.Close(fd) })
		watched[fd] = command
		if strings.Contains(command, " echo ") {
			pods++
		}
	}
	if pods == 0 {
		t.Errorf("no process of a pod among %v", processes)
	}
	return func() {
		t.Helper()
		for fd, command := range watched {
			// The kernel ends a supervisor only after all processes of its namespace: there is nothing to wait for.
			if n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0); n != 1 {
				t.Errorf("outlives the supervisor (%v): %s", err, command)
			}
		}
	}
}
