package node_test

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"varco.dev/lab/internal/node"
)

func TestExpand(t *testing.T) {
	vars := map[string]string{"A": "1", "B": "$(A)", "EMPTY": ""}
	tests := []struct{ name, in, want string }{
		{"plain", "x", "x"},
		{"variable", "-$(A)-", "-1-"},
		{"not twice", "$(B)", "$(A)"},
		{"empty value", "[$(EMPTY)]", "[]"},
		{"unknown stays", "$(NO)", "$(NO)"},
		{"escaped", "$$(A)", "$(A)"},
		{"escaped dollar and variable", "$$$(A)", "$1"},
		{"not closed", "$(A", "$(A"},
		{"dollar at end", "a$", "a$"},
		{"dollar alone", "$A", "$A"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := node.Expand(tt.in, func(n string) (string, bool) { v, ok := vars[n]; return v, ok })
			if got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
}

// fakeObjects are the ConfigMaps and Secrets of a test.
type fakeObjects map[string]map[string][]byte

func (f fakeObjects) get(name string, optional *bool) (map[string][]byte, error) {
	data, ok := f[name]
	if !ok && (optional == nil || !*optional) {
		return nil, errors.New("not found")
	}
	return data, nil
}

func (f fakeObjects) ConfigMap(name string, o *bool) (map[string][]byte, error) {
	return f.get("cm/"+name, o)
}
func (f fakeObjects) Secret(name string, o *bool) (map[string][]byte, error) {
	return f.get("s/"+name, o)
}

func TestEnvOf(t *testing.T) {
	yes := true
	field := func(path string) *v1.EnvVarSource {
		return &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: path}}
	}
	key := func(name, key string, optional *bool) *v1.EnvVarSource {
		return &v1.EnvVarSource{ConfigMapKeyRef: &v1.ConfigMapKeySelector{
			LocalObjectReference: v1.LocalObjectReference{Name: name}, Key: key, Optional: optional}}
	}
	pod := &v1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p", Namespace: "n", Labels: map[string]string{"app": "x"}}}
	pod.Spec.NodeName = "node-1"
	pod.Status.PodIPs = []v1.PodIP{{IP: "10.0.0.1"}, {IP: "fd00::1"}}
	tests := []struct {
		name    string
		c       v1.Container
		want    map[string]string
		wantErr bool
	}{
		{name: "later values see earlier ones", c: v1.Container{Env: []v1.EnvVar{{Name: "A", Value: "1"}, {Name: "B", Value: "$(A)$(BASE)"}}},
			want: map[string]string{"A": "1", "B": "1b"}},
		{name: "fields", c: v1.Container{Env: []v1.EnvVar{
			{Name: "NAME", ValueFrom: field("metadata.name")}, {Name: "APP", ValueFrom: field("metadata.labels['app']")},
			{Name: "NODE", ValueFrom: field("spec.nodeName")}, {Name: "IPS", ValueFrom: field("status.podIPs")}}},
			want: map[string]string{"NAME": "p", "APP": "x", "NODE": "node-1", "IPS": "10.0.0.1,fd00::1"}},
		{name: "unknown field", c: v1.Container{Env: []v1.EnvVar{{Name: "A", ValueFrom: field("spec.priority")}}}, wantErr: true},
		{name: "key", c: v1.Container{Env: []v1.EnvVar{{Name: "A", ValueFrom: key("conf", "k", nil)}}}, want: map[string]string{"A": "v"}},
		{name: "key missing", c: v1.Container{Env: []v1.EnvVar{{Name: "A", ValueFrom: key("conf", "no", nil)}}}, wantErr: true},
		{name: "optional key missing", c: v1.Container{Env: []v1.EnvVar{{Name: "A", ValueFrom: key("conf", "no", &yes)}}}},
		{name: "object missing", c: v1.Container{Env: []v1.EnvVar{{Name: "A", ValueFrom: key("no", "k", nil)}}}, wantErr: true},
		{name: "optional object missing", c: v1.Container{Env: []v1.EnvVar{{Name: "A", ValueFrom: key("no", "k", &yes)}}}},
		{name: "all of a secret, own variables win", c: v1.Container{
			EnvFrom: []v1.EnvFromSource{{Prefix: "S_", SecretRef: &v1.SecretEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "sec"}}}},
			Env:     []v1.EnvVar{{Name: "S_a", Value: "own"}}},
			want: map[string]string{"S_a": "own", "S_b": "2"}},
	}
	objects := fakeObjects{"cm/conf": {"k": []byte("v")}, "s/sec": {"a": []byte("1"), "b": []byte("2")}}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := node.EnvOf(&tt.c, pod, objects)
			if (err != nil) != tt.wantErr {
				t.Fatalf("error %v, want one: %v", err, tt.wantErr)
			}
			if err != nil {
				return
			}
			delete(got, "BASE")
			if tt.want == nil {
				tt.want = map[string]string{}
			}
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestCommandOf(t *testing.T) {
	image := []string{"/opt/varco", "echo"}
	tests := []struct {
		name      string
		cmd, args []string
		want      []string
	}{
		{"image alone", nil, nil, []string{"/opt/varco", "echo"}},
		{"args are added", nil, []string{"-v"}, []string{"/opt/varco", "echo", "-v"}},
		{"command takes the place", []string{"/bin/sh", "-c"}, []string{"x"}, []string{"/bin/sh", "-c", "x"}},
		{"command by the program's name", []string{"varco", "kube-proxy"}, nil, []string{"/opt/varco", "kube-proxy"}},
		{"command by the program's name at the root", []string{"/varco"}, nil, []string{"/opt/varco"}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got := node.CommandOf(image, &v1.Container{Command: tt.cmd, Args: tt.args}, func(s string) string { return s })
			if d := cmp.Diff(tt.want, got); d != "" {
				t.Errorf("(-want +got)\n%s", d)
			}
		})
	}
}

func TestImageOf(t *testing.T) {
	images, err := node.ParseImages([]string{"varco=/opt/varco,kube-proxy", "reg:5000/x:v1=/x"})
	if err != nil {
		t.Fatal(err)
	}
	tests := []struct {
		name, image string
		want        []string
	}{
		{"by name", "varco", []string{"/opt/varco", "kube-proxy"}},
		{"tag", "varco:v1", []string{"/opt/varco", "kube-proxy"}},
		{"tag and digest", "docker.io/varco:v1@sha256:00", []string{"/opt/varco", "kube-proxy"}},
		{"name with a tag", "reg:5000/x:v1", []string{"/x"}},
		{"other tag", "reg:5000/x:v2", nil},
		{"unknown", "nginx", nil},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			got, err := node.ImageOf(images, tt.image)
			if d := cmp.Diff(tt.want, got); d != "" || (err == nil) != (tt.want != nil) {
				t.Errorf("error %v, (-want +got)\n%s", err, d)
			}
		})
	}
	for _, bad := range []string{"x", "=/x", "x=relative", ""} {
		if _, err := node.ParseImages([]string{bad}); err == nil {
			t.Errorf("image %q: no error", bad)
		}
	}
}

func TestAddresses(t *testing.T) {
	a, err := node.NewAddresses([]string{"fd00:244:0:1::/64", "10.244.1.0/29"})
	if err != nil {
		t.Fatal(err)
	}
	var got []int
	for range 5 {
		n, err := node.Take(a)
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, n)
	}
	if d := cmp.Diff([]int{2, 3, 4, 5, 6}, got); d != "" {
		t.Errorf("fresh addresses (-want +got)\n%s", d)
	}
	if _, err := node.Take(a); !errors.Is(err, node.ErrNoAddress) {
		t.Errorf("error %v, want %v", err, node.ErrNoAddress)
	}
	node.Release(a, 5)
	node.Release(a, 3)
	for _, want := range []int{5, 3} {
		if n, err := node.Take(a); n != want || err != nil {
			t.Errorf("got %d, %v; want %d, the one freed longest ago", n, err, want)
		}
	}
	for _, bad := range [][]string{nil, {"10.0.0.0/24"}, {"x", "y"}} {
		if _, err := node.NewAddresses(bad); err == nil {
			t.Errorf("podCIDRs %v: no error", bad)
		}
	}
}

func TestBackoff(t *testing.T) {
	var b node.Backoff
	var got []time.Duration
	for range 8 {
		got = append(got, node.After(&b, time.Second)/time.Second)
	}
	if d := cmp.Diff([]time.Duration{0, 1, 2, 4, 8, 16, 30, 30}, got); d != "" {
		t.Errorf("seconds (-want +got)\n%s", d)
	}
	if d := node.After(&b, time.Hour); d != 0 {
		t.Errorf("after a long run: %v, want 0", d)
	}
}

func TestThreshold(t *testing.T) {
	tests := []struct {
		name          string
		success, fail int32
		results, want string // one letter for each probe: + or -; the state reached after it: U, D or . for none
	}{
		{"first result counts", 1, 1, "+-+", "UDU"},
		{"three failures", 1, 3, "+--+---", "U..U..D"},
		{"again while it lasts", 1, 2, "----", ".DDD"},
		{"two successes", 2, 1, "+-++", ".D.U"},
		{"zero means one", 0, 0, "+-", "UD"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			th := node.NewThreshold(&v1.Probe{SuccessThreshold: tt.success, FailureThreshold: tt.fail})
			got := ""
			for _, r := range tt.results {
				switch reached := node.Add(&th, r == '+'); {
				case !reached:
					got += "."
				case r == '+':
					got += "U"
				default:
					got += "D"
				}
			}
			if got != tt.want {
				t.Errorf("results %s: states %s, want %s", tt.results, got, tt.want)
			}
		})
	}
}

func TestRestarts(t *testing.T) {
	tests := []struct {
		policy v1.RestartPolicy
		code   int32
		want   bool
	}{
		{v1.RestartPolicyAlways, 0, true}, {v1.RestartPolicyAlways, 1, true},
		{v1.RestartPolicyOnFailure, 0, false}, {v1.RestartPolicyOnFailure, 1, true},
		{v1.RestartPolicyNever, 0, false}, {v1.RestartPolicyNever, 1, false},
	}
	for _, tt := range tests {
		t.Run(fmt.Sprint(tt.policy, tt.code), func(t *testing.T) {
			if got := node.Restarts(tt.policy, tt.code); got != tt.want {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestRoutesOf(t *testing.T) {
	n := &v1.Node{Spec: v1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24", "fd00:244:0:1::/64", "bad"}}}
	n.Status.Addresses = []v1.NodeAddress{
		{Type: v1.NodeHostName, Address: "node-2"}, {Type: v1.NodeInternalIP, Address: "10.240.0.12"},
		{Type: v1.NodeInternalIP, Address: "fd00:240::c"}, {Type: v1.NodeInternalIP, Address: "10.9.9.9"},
	}
	want := map[netip.Prefix]netip.Addr{
		netip.MustParsePrefix("10.244.1.0/24"):     netip.MustParseAddr("10.240.0.12"),
		netip.MustParsePrefix("fd00:244:0:1::/64"): netip.MustParseAddr("fd00:240::c"),
	}
	got := node.RoutesOf(n)
	if d := cmp.Diff(fmt.Sprint(want), fmt.Sprint(got)); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
}

func TestPayload(t *testing.T) {
	dir := t.TempDir()
	read := func(name string) string {
		b, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil {
			return "none"
		}
		return string(b)
	}
	steps := []struct {
		name    string
		payload node.Payload
		want    map[string]string
	}{
		{"first", node.Payload{"a": node.NewFile("1"), "d/e": node.NewFile("2")}, map[string]string{"a": "1", "d/e": "2"}},
		{"same", node.Payload{"a": node.NewFile("1"), "d/e": node.NewFile("2")}, map[string]string{"a": "1", "d/e": "2"}},
		{"changed", node.Payload{"a": node.NewFile("3"), "b": node.NewFile("4")}, map[string]string{"a": "3", "b": "4", "d/e": "none"}},
		{"empty", node.Payload{}, map[string]string{"a": "none", "b": "none"}},
	}
	for _, s := range steps {
		t.Run(s.name, func(t *testing.T) {
			if err := node.Write(s.payload, dir); err != nil {
				t.Fatal(err)
			}
			for name, want := range s.want {
				if got := read(name); got != want {
					t.Errorf("file %s: %q, want %q", name, got, want)
				}
			}
			if versions, _ := filepath.Glob(filepath.Join(dir, "..[0-9]*")); len(versions) != 1 {
				t.Errorf("%d versions left, want 1", len(versions))
			}
		})
	}
	for _, bad := range []string{"../x", "/x", "..x", "a/../../x", ""} {
		if err := node.Write(node.Payload{bad: node.NewFile("x")}, t.TempDir()); err == nil {
			t.Errorf("file %q: no error", bad)
		}
	}
}
