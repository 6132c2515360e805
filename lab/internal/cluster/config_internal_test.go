package cluster

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
)

func TestCompleteRefuses(t *testing.T) {
	dir := t.TempDir()
	for name, tc := range map[string]struct {
		cfg  Config
		want string
	}{
		"no folder":           {Config{}, "folder"},
		"negative nodes":      {Config{Dir: dir, Nodes: -1}, "nodes"},
		"too many nodes":      {Config{Dir: dir, Nodes: maxNodes + 1}, "nodes"},
		"too many apiservers": {Config{Dir: dir, APIServers: maxControlPlanes + 1}, "API servers"},
		"proxy of some":       {Config{Dir: dir, APIServerProxy: "some"}, "apiserver-proxy"},
		"balancer not there":  {Config{Dir: dir, APIServerLB: "/nowhere/varco"}, "no such file"},
		"long folder":         {Config{Dir: "/" + strings.Repeat("x", 100)}, "too long"},
		"image without path":  {Config{Dir: dir, Images: []string{"varco"}}, "NAME=PATH"},
		"image without name":  {Config{Dir: dir, Images: []string{"=/bin/sh"}}, "NAME=PATH"},
		"image not there":     {Config{Dir: dir, Images: []string{"varco=/nowhere/varco"}}, "no such file"},
		"image not a program": {Config{Dir: dir, Images: []string{"varco=/etc/passwd"}}, "not executable"},
		"image is a folder":   {Config{Dir: dir, Images: []string{"varco=/etc"}}, "not executable"},
	} {
		if _, err := tc.cfg.complete(); err == nil || !strings.Contains(err.Error(), tc.want) {
			t.Errorf("%s: got %v, want an error with %q", name, err, tc.want)
		}
	}
}

func TestCompleteFills(t *testing.T) {
	dir := t.TempDir()
	link := filepath.Join(dir, "link")
	if err := os.Symlink(dir, link); err != nil {
		t.Fatal(err)
	}
	cfg := Config{Dir: filepath.Join(link, "a", "b"), Binary: "/bin/true", Images: []string{"sh=/bin/sh,-c,true"}}
	got, err := cfg.complete()
	if err != nil {
		t.Fatal(err)
	}
	want := Config{Dir: filepath.Join(dir, "a", "b"), APIServers: 1, Timeout: DefaultTimeout, Binary: "/bin/true",
		Images: []string{"sh=/bin/sh,-c,true"}}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("complete (-want +got):\n%s", diff)
	}
}

func TestConfigRoundTrip(t *testing.T) {
	want := Config{Dir: t.TempDir(), Nodes: 2, APIServers: 3, APIServerProxy: ProxyOfFirst, Images: []string{"a=/b"}, Timeout: 5, Binary: "/c"}
	if err := want.save(); err != nil {
		t.Fatal(err)
	}
	got, err := loadConfig(want.Dir)
	if diff := cmp.Diff(want, got); diff != "" || err != nil {
		t.Errorf("error %v (-want +got):\n%s", err, diff)
	}
}

func TestHosts(t *testing.T) {
	for value, want := range map[string]int{"": 0, ProxyOfFirst: 1, ProxyOfAll: 3} {
		if got := (Config{Dir: "/x", APIServers: 3, APIServerProxy: value}).layout(1).Hosts; got != want {
			t.Errorf("%q: %d API servers have it, want %d", value, got, want)
		}
	}
}

func TestBalancerInLayout(t *testing.T) {
	if got := (Config{Dir: "/x", APIServers: 3}).layout(1).Balancer; got != nil {
		t.Errorf("a balancer that nobody asked for: %v", got)
	}
	l := Config{Dir: "/x", APIServers: 3, APIServerLB: "/bin/true", ShutdownDelay: 5}.layout(1)
	if l.Balancer == nil || l.Balancer.Addrs[0].String() != "10.240.0.10" || l.ShutdownDelay != 5 {
		t.Errorf("layout %+v", l)
	}
}

func TestLayout(t *testing.T) {
	l := Config{Dir: "/x", Nodes: 2, APIServers: 2}.layout(1)
	var got []string
	for _, h := range append(l.ControlPlanes, l.Nodes...) {
		got = append(got, h.Name+" "+h.Addrs[0].String()+" "+h.Addrs[1].String())
	}
	want := []string{"control-plane-0 10.240.0.2 fd00:240::2", "control-plane-1 10.240.0.3 fd00:240::3",
		"node-1 10.240.0.11 fd00:240::b", "node-2 10.240.0.12 fd00:240::c"}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("machines (-want +got):\n%s", diff)
	}
}
