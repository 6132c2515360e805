package node_test

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"varco.dev/lab/internal/node"
)

func TestVolumes(t *testing.T) {
	w := newWorld(t)
	ctx := context.Background()
	conf := &v1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "conf", Namespace: "default"}, Data: map[string]string{"a": "1"}}
	if _, err := w.client.CoreV1().ConfigMaps("default").Create(ctx, conf, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	pod := w.pod("web", "serve")
	pod.Spec.Volumes = []v1.Volume{
		{Name: "conf", VolumeSource: v1.VolumeSource{ConfigMap: &v1.ConfigMapVolumeSource{LocalObjectReference: v1.LocalObjectReference{Name: "conf"}}}},
		{Name: "data", VolumeSource: v1.VolumeSource{EmptyDir: &v1.EmptyDirVolumeSource{}}},
	}
	pod.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{
		{Name: "conf", MountPath: "/etc/conf", ReadOnly: true}, {Name: "data", MountPath: "/usr/share/new/data"},
		{Name: "conf", MountPath: "/var/run/one", SubPath: "a"},
	}
	w.create(pod)
	w.await("web", "ready", isReady)
	url := "http://10.244.1.2:8080"
	for path, want := range map[string]string{"/etc/conf/a": "1", "/run/one": "1"} {
		if got := w.get(url + "/file?path=" + path); got != want {
			t.Errorf("file %s: %q, want %q", path, got, want)
		}
	}
	host := filepath.Join(w.dir, "from-a-container")
	for path, ok := range map[string]bool{
		"/usr/share/new/data/x": true, "/tmp/varco-lab-test-x": true, "/etc/conf/x": false, "/usr/lib/x": false, "/.host" + host: false,
	} {
		if got := w.get(url + "/write?path=" + path); (got == "<nil>") != ok {
			t.Errorf("write %s: %s; want success: %v", path, got, ok)
		}
	}
	for _, path := range []string{"/tmp/varco-lab-test-x", "/usr/share/new", "/etc/conf", host} {
		if _, err := os.Lstat(path); err == nil {
			t.Errorf("%s is on the machine", path)
		}
	}
}

func TestPayloadStaysInVolume(t *testing.T) {
	top := t.TempDir()
	dir, other := filepath.Join(top, "volume"), filepath.Join(top, "other")
	for _, d := range []string{dir, other} {
		if err := os.Mkdir(d, 0o755); err != nil {
			t.Fatal(err)
		}
	}
	if err := node.Write(node.Payload{"a": node.NewFile("1")}, dir); err != nil {
		t.Fatal(err)
	}
	for _, to := range []string{"../other", other, "..7/../../other"} {
		if err := os.Remove(filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		if err := os.Symlink(to, filepath.Join(dir, "..data")); err != nil {
			t.Fatal(err)
		}
		if err := node.Write(node.Payload{"a": node.NewFile("2")}, dir); err != nil {
			t.Errorf("..data to %s: %v", to, err)
		}
		if _, err := os.Stat(other); err != nil {
			t.Errorf("..data to %s: the folder that it led to is gone", to)
		}
		if b, _ := os.ReadFile(filepath.Join(dir, "a")); string(b) != "2" {
			t.Errorf("..data to %s: volume holds %q, want 2", to, b)
		}
	}
}

func TestHostPathIsMadeInState(t *testing.T) {
	w := newWorld(t)
	missing := filepath.Join(w.dir, "missing")
	kind := v1.HostPathDirectoryOrCreate
	pod := w.pod("web", "serve")
	pod.Spec.Volumes = []v1.Volume{{Name: "h", VolumeSource: v1.VolumeSource{HostPath: &v1.HostPathVolumeSource{Path: missing, Type: &kind}}}}
	pod.Spec.Containers[0].VolumeMounts = []v1.VolumeMount{{Name: "h", MountPath: "/data"}}
	w.create(pod)
	w.await("web", "ready", isReady)
	if got := w.get("http://10.244.1.2:8080/write?path=/data/x"); got != "<nil>" {
		t.Errorf("write: %s", got)
	}
	if _, err := os.Stat(missing); err == nil {
		t.Error("the folder was made on the machine")
	}
	if _, err := os.Stat(filepath.Join(w.dir, "state", "host", missing, "x")); err != nil {
		t.Error(err)
	}
}
