package kernel_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/sys/unix"
	"varco.dev/internal/kernel"
	"varco.dev/internal/nettest"
)

const (
	netfilter = "/proc/sys/net/netfilter/"
	hashSize  = "/sys/module/nf_conntrack/parameters/hashsize"
)

func ptr[T any](v T) *T { return &v }

func TestConntrackSettings(t *testing.T) {
	upstreamDefaults := kernel.ConntrackLimits{
		MaxPerCore: ptr[int32](32768), Min: ptr[int32](131072),
		TCPEstablishedTimeout: ptr(24 * time.Hour), TCPCloseWaitTimeout: ptr(time.Hour),
		UDPTimeout: ptr(time.Duration(0)), UDPStreamTimeout: ptr(time.Duration(0)),
	}
	times := []string{"nf_conntrack_tcp_timeout_established=86400", "nf_conntrack_tcp_timeout_close_wait=3600"}
	for _, test := range []struct {
		name   string
		limits kernel.ConntrackLimits
		cpus   int
		want   []string
	}{
		{"nothing", kernel.ConntrackLimits{}, 8, nil},
		{"small machine", upstreamDefaults, 2, append([]string{"nf_conntrack_max>=131072", "hashsize>=32768"}, times...)},
		{"larger machine", upstreamDefaults, 8, append([]string{"nf_conntrack_max>=262144", "hashsize>=65536"}, times...)},
		{"huge machine", upstreamDefaults, 256, append([]string{"nf_conntrack_max>=1048576", "hashsize>=262144"}, times...)},
		{"no size", kernel.ConntrackLimits{MaxPerCore: ptr[int32](0), Min: ptr[int32](1000)}, 8, nil},
		{"no minimum", kernel.ConntrackLimits{MaxPerCore: ptr[int32](1000)}, 2, []string{"nf_conntrack_max>=2000", "hashsize>=500"}},
		{
			"minimum above the limit", kernel.ConntrackLimits{MaxPerCore: ptr[int32](1), Min: ptr[int32](2_000_000)}, 2,
			[]string{"nf_conntrack_max>=2000000", "hashsize>=500000"},
		},
		{
			"all the rest", kernel.ConntrackLimits{TCPBeLiberal: true, UDPTimeout: ptr(1900 * time.Millisecond), UDPStreamTimeout: ptr(time.Millisecond)}, 2,
			[]string{"nf_conntrack_tcp_be_liberal=1", "nf_conntrack_udp_timeout=1", "nf_conntrack_udp_timeout_stream=1"},
		},
	} {
		t.Run(test.name, func(t *testing.T) {
			var got []string
			for _, s := range test.limits.Settings(test.cpus) {
				sign := "="
				if s.AtLeast {
					sign = ">="
				}
				got = append(got, filepath.Base(s.Path)+sign+strconv.Itoa(s.Value))
			}
			if diff := cmp.Diff(test.want, got); diff != "" {
				t.Errorf("settings (-want +got):\n%s", diff)
			}
		})
	}
}

// newRoot makes a directory that stands for /, with these files.
func newRoot(t *testing.T, files map[string]string) string {
	t.Helper()
	root := t.TempDir()
	for path, content := range files {
		at := filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(at), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(at, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return root
}

func TestOnlineCPUs(t *testing.T) {
	for content, want := range map[string]int{
		"0\n":          1,
		"0-3\n":        4,
		"0-3,8-11,15":  9,
		"3-0\n":        runtime.NumCPU(),
		"":             runtime.NumCPU(),
		"zero to four": runtime.NumCPU(),
	} {
		root := newRoot(t, map[string]string{"/sys/devices/system/cpu/online": content})
		if got := kernel.OnlineCPUs(root); got != want {
			t.Errorf("%q are %d CPUs, want %d", content, got, want)
		}
	}
	if got := kernel.OnlineCPUs(t.TempDir()); got != runtime.NumCPU() {
		t.Errorf("without the file there are %d CPUs, want those of the process", got)
	}
}

func TestApplySettings(t *testing.T) {
	root := newRoot(t, map[string]string{
		netfilter + "nf_conntrack_max":         "262144\n",
		netfilter + "nf_conntrack_udp_timeout": "30\n",
		hashSize:                               "1024\n",
	})
	limits := kernel.ConntrackLimits{MaxPerCore: ptr[int32](1 << 16), TCPBeLiberal: true, UDPTimeout: ptr(10 * time.Second)}
	for _, want := range [][]string{{hashSize + "=32768", netfilter + "nf_conntrack_udp_timeout=10"}, nil} {
		set, warnings, err := kernel.ApplySettings(root, limits.Settings(2))
		var got []string
		for _, s := range set {
			got = append(got, s.String())
		}
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("set (-want +got):\n%s", diff)
		}
		if !errors.Is(err, fs.ErrNotExist) || len(warnings) != 0 {
			t.Errorf("returned %v and warnings %q; want an error for the one file that is missing", err, warnings)
		}
	}
	for path, want := range map[string]string{netfilter + "nf_conntrack_max": "262144\n", hashSize: "32768"} {
		if got, err := os.ReadFile(filepath.Join(root, path)); err != nil || string(got) != want {
			t.Errorf("%s is %q, %v; want %q", path, got, err, want)
		}
	}
}

// TestApplyReal sets what belongs to a network namespace, and is refused what belongs to the whole machine.
func TestApplyReal(t *testing.T) {
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	limits := kernel.ConntrackLimits{
		TCPEstablishedTimeout: ptr(time.Hour), TCPCloseWaitTimeout: ptr(2 * time.Minute), TCPBeLiberal: true,
		UDPTimeout: ptr(11 * time.Second), UDPStreamTimeout: ptr(12 * time.Second),
	}
	for _, want := range []int{5, 0} {
		err := ns.Do(func() error {
			set, warnings, err := kernel.ApplySettings("", limits.Settings(1))
			if len(set) != want || len(warnings) != 0 {
				t.Errorf("set %v with warnings %q, want %d", set, warnings, want)
			}
			return err
		})
		if err != nil {
			t.Error(err)
		}
	}
	err = ns.Do(func() error {
		got, err := os.ReadFile(netfilter + "nf_conntrack_udp_timeout_stream")
		if strings.TrimSpace(string(got)) != "12" {
			t.Errorf("the kernel has %q, want 12", got)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
	// What belongs to the whole machine is refused to all but its first network namespace.
	err = ns.Do(func() error {
		set, warnings, err := kernel.ApplySettings("", []kernel.Setting{
			{Path: netfilter + "nf_conntrack_max", Value: 1 << 30, AtLeast: true},
			{Path: hashSize, Value: 1 << 30, AtLeast: true},
		})
		if len(set) != 0 || len(warnings) != 2 {
			t.Errorf("set %v with warnings %q, want 2 warnings", set, warnings)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestApplyReadOnly(t *testing.T) {
	nettest.NeedRoot(t)
	root := newRoot(t, map[string]string{hashSize: "1024"})
	if err := unix.Mount(root, root, "", unix.MS_BIND, ""); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Unmount(root, unix.MNT_DETACH) })
	if err := unix.Mount("", root, "", unix.MS_BIND|unix.MS_REMOUNT|unix.MS_RDONLY, ""); err != nil {
		t.Fatal(err)
	}
	set, warnings, err := kernel.ApplySettings(root, []kernel.Setting{{Path: hashSize, Value: 2048, AtLeast: true}})
	if len(set) != 0 || err != nil || len(warnings) != 1 || !strings.Contains(warnings[0], hashSize+"=2048") {
		t.Errorf("set %v with %v and warnings %q; want one warning of what to set", set, err, warnings)
	}
}

func TestSetOOMScore(t *testing.T) {
	const file = "/proc/self/oom_score_adj"
	before, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	old, err := strconv.Atoi(strings.TrimSpace(string(before)))
	if err != nil {
		t.Fatal(err)
	}
	want := min(old+1, 1000) // raising is always allowed
	if err := kernel.SetOOMScore(want); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(file)
	if got := strings.TrimSpace(string(after)); err != nil || got != strconv.Itoa(want) {
		t.Errorf("score is %q, %v; want %d", got, err, want)
	}
	if err := kernel.SetOOMScore(1001); !errors.Is(err, unix.EINVAL) {
		t.Errorf("1001 returned %v, want EINVAL", err)
	}
}
