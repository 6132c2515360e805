package controlplane_test

import (
	"os"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"varco.dev/lab/internal/controlplane"
)

func components(l controlplane.Layout) (list []controlplane.Component) {
	for _, stage := range l.Stages() {
		list = append(list, stage.Components...)
	}
	return list
}

func TestStages(t *testing.T) {
	for _, tc := range []struct {
		planes  int
		want    []string
		elected bool
	}{
		{1, []string{"etcd", "kube-apiserver", "kube-controller-manager", "kube-scheduler"}, false},
		{2, []string{"etcd", "kube-apiserver-0", "kube-apiserver-1", "kube-controller-manager-0", "kube-controller-manager-1",
			"kube-scheduler-0", "kube-scheduler-1"}, true},
	} {
		var got []string
		for _, c := range components(newLayout(t, tc.planes, 0)) {
			got = append(got, c.Name)
			if c.Args[0] == "kube-scheduler" && slices.Contains(c.Args, "--leader-elect=true") != tc.elected {
				t.Errorf("%d control planes: flags of %s: %v", tc.planes, c.Name, c.Args)
			}
		}
		if diff := cmp.Diff(tc.want, got); diff != "" {
			t.Errorf("%d control planes (-want +got):\n%s", tc.planes, diff)
		}
	}
}

// A kube-apiserver that hosts varco is another command with the same flags and some more; the others do not know.
func TestHostsOfVarco(t *testing.T) {
	l := newLayout(t, 2, 0)
	plain := components(l)
	l.Hosts = 1
	for i, c := range components(l) {
		want := plain[i].Args
		if c.Name == "kube-apiserver-0" {
			want = append([]string{controlplane.HostCommand}, want[1:]...)
			c.Args = c.Args[:len(want)]
		}
		if diff := cmp.Diff(want, c.Args); diff != "" {
			t.Errorf("%s (-want +got):\n%s", c.Name, diff)
		}
	}
}

// Every file that a flag names is one that WriteFiles made.
func TestFlagsNameFilesThatExist(t *testing.T) {
	l := newLayout(t, 2, 1)
	for _, c := range components(l) {
		files := []string{c.CA, c.Cert, c.Key}
		for _, arg := range c.Args {
			if _, value, _ := strings.Cut(arg, "="); strings.HasPrefix(value, l.Dir) && !strings.HasPrefix(arg, "--data-dir") {
				files = append(files, value)
			}
		}
		for _, file := range files {
			if _, err := os.Stat(file); err != nil && file != "" {
				t.Errorf("%s: %v", c.Name, err)
			}
		}
	}
}

// Each control plane speaks for itself and has its own clients.
func TestAddressesOfControlPlanes(t *testing.T) {
	l := newLayout(t, 2, 0)
	for _, c := range components(l) {
		for i, address := range []string{"10.240.0.2", "10.240.0.3"} {
			if c.Name == "kube-apiserver-"+string(rune('0'+i)) {
				if !slices.Contains(c.Args, "--advertise-address="+address) || !strings.Contains(c.Ready, address) {
					t.Errorf("%s at %s: %v, ready at %s", c.Name, address, c.Args, c.Ready)
				}
			}
		}
	}
}
