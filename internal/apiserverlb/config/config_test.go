package config_test

import (
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"
	"sigs.k8s.io/yaml"

	"varco.dev/internal/apiserverlb/config"
)

const header = "apiVersion: " + config.APIVersion + "\nkind: " + config.Kind + "\n"

// TestDefaultLacksBackendsAlone: the default is a configuration that Validate accepts, once it has a backend.
func TestDefaultLacksBackendsAlone(t *testing.T) {
	c := config.Default()
	if err := c.Validate(); err == nil || err.Error() != "backends.static: it is empty: name an API server at least" {
		t.Errorf("got %v", err)
	}
	c.Backends.Static = []config.Static{{Address: "10.0.0.1:6443"}}
	if err := c.Validate(); err != nil {
		t.Error(err)
	}
	before := c
	c.Complete()
	if diff := cmp.Diff(before, c); diff != "" {
		t.Errorf("the default is not complete (-default +complete):\n%s", diff)
	}
}

// TestFileEqualsFlags: what is set in fields, as flags do, and completed is what a file of the same says.
func TestFileEqualsFlags(t *testing.T) {
	want, err := config.Decode([]byte(header + `
listeners: [{address: "127.0.0.1:1"}, {address: "127.0.0.1:2", name: two}]
health: {caFile: /ca, serverName: s}
backends: {static: [a:1], kubernetes: {kubeconfig: /k}}
`))
	if err != nil {
		t.Fatal(err)
	}
	got := config.Default()
	got.Listeners = []config.Listener{{Address: "127.0.0.1:1"}, {Address: "127.0.0.1:2", Name: "two"}}
	given := got.Listeners
	got.Health.CAFile, got.Health.ServerName, got.Backends.Kubernetes.Kubeconfig = "/ca", "s", "/k"
	got.Backends.Static = []config.Static{{Address: "a:1"}}
	got.Complete()
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-file +flags):\n%s", diff)
	}
	if given[0].Name != "" {
		t.Error("Complete changed the slice that it was given")
	}
	if got.HTTPS.CAFile != "/ca" || got.HTTPS.ServerName != "s" || got.HTTPS.Kubeconfig != "/k" || got.Listeners[0].Name != "127.0.0.1:1" {
		t.Errorf("got %+v", got)
	}
}

// TestDefaultIsFresh: what a file says is not left over in the next default.
func TestDefaultIsFresh(t *testing.T) {
	c, err := config.Decode([]byte(header + "https: {requestHeader: {usernameHeaders: [A], groupHeaders: []}}\nlisteners: [{address: ':1', mode: https}]"))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff([]string{"A"}, c.HTTPS.RequestHeader.UsernameHeaders); diff != "" || len(c.HTTPS.RequestHeader.GroupHeaders) != 0 {
		t.Errorf("got %+v", c.HTTPS.RequestHeader)
	}
	d := config.Default()
	if d.HTTPS.RequestHeader.UsernameHeaders[0] != "X-Remote-User" || d.Listeners[0].Mode != config.ModeTCP {
		t.Errorf("got %+v", d)
	}
}

func TestAddresses(t *testing.T) {
	for text, want := range map[string]string{
		"127.0.0.1:6443": "127.0.0.1:6443", ":6443": "[::]:6443", "0.0.0.0:1": "0.0.0.0:1", "[::1]:65535": "[::1]:65535",
		"[::ffff:10.0.0.1]:1": "10.0.0.1:1", "[fe80::1%eth0]:1": "[fe80::1%eth0]:1",
	} {
		got, err := config.Listener{Address: text}.AddrPort()
		if err != nil || got != netip.MustParseAddrPort(want) {
			t.Errorf("%s: got %v, %v", text, got, err)
		}
	}
	for _, text := range []string{"", ":", "6443", "localhost:1", "::1:1", "127.0.0.1:0", "127.0.0.1", "[::]"} {
		if got, err := (config.Listener{Address: text}).AddrPort(); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestPrefixes(t *testing.T) {
	from := config.ProxyProtocol{From: []string{"10.1.2.3/8", "192.0.2.1", "::ffff:192.0.2.2", "2001:db8::1/32"}}
	got, err := from.Prefixes()
	want := []netip.Prefix{
		netip.MustParsePrefix("10.0.0.0/8"), netip.MustParsePrefix("192.0.2.1/32"), netip.MustParsePrefix("192.0.2.2/32"), netip.MustParsePrefix("2001:db8::/32"),
	}
	if diff := cmp.Diff(want, got, cmpopts.EquateComparable(netip.Prefix{})); err != nil || diff != "" {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, text := range []string{"", "all", "10.0.0.0/33", "fe80::1%eth0", "::ffff:10.0.0.0/104"} {
		if got, err := (config.ProxyProtocol{From: []string{text}}).Prefixes(); err == nil {
			t.Errorf("%q: got %v", text, got)
		}
	}
}

func TestRestart(t *testing.T) {
	old := config.Default()
	old.Listeners = []config.Listener{{Address: "127.0.0.1:6443", Mode: config.ModeHTTPS}}
	for name, change := range map[string]func(*config.Config){
		"":                          func(c *config.Config) { c.Zone, c.Limits.Connections, c.Listeners = "b", 3, nil },
		"https":                     func(c *config.Config) { c.HTTPS.RequestHeader.GroupHeaders = []string{"X"} },
		"timeouts":                  func(c *config.Config) { c.Timeouts.User.Duration++ },
		"health.insecureSkipVerify": func(c *config.Config) { c.Health.InsecureSkipVerify = true },
		"workers":                   func(c *config.Config) { c.Workers = 2 },
		"metricsAddress":            func(c *config.Config) { c.MetricsAddress = "" },
		"handoverSocket":            func(c *config.Config) { c.HandoverSocket = "/run/s" },
	} {
		changed := config.Default()
		change(&changed)
		if got := strings.Join(config.Restart(old, changed), ","); got != name {
			t.Errorf("got %q, want %q", got, name)
		}
	}
	other := config.Default()
	other.HTTPS.CAFile, other.Timeouts.User.Duration = "other.crt", 1
	if got := config.Restart(config.Default(), other); got != nil {
		t.Errorf("without a listener of mode https: got %q", got)
	}
}

func TestUnreadable(t *testing.T) {
	large := filepath.Join(t.TempDir(), "large")
	if err := os.WriteFile(large, []byte(strings.Repeat("# pad\n", 1e6)), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/nonexistent": "no such file", t.TempDir(): "it is a folder, not a file", large: "larger than 1048576 bytes",
	} {
		if _, err := config.Read(path); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("got error %v, want %q", err, want)
		}
	}
	if _, err := config.Decode([]byte(strings.Repeat("# pad\n", 1e6))); err == nil {
		t.Error("a large file was read")
	}
}

// TestCheckFiles and Validate say the same as Read, without the file.
func TestCheckFiles(t *testing.T) {
	c := config.Default()
	c.Health.CAFile, c.Workers = "/nonexistent", -1
	c.Backends.Static = []config.Static{{Address: "a:1"}}
	if err := c.CheckFiles(); err == nil || err.Error() != "health.caFile: open /nonexistent: no such file or directory" {
		t.Errorf("got %v", err)
	}
	if err := c.Validate(); err == nil || err.Error() != "workers: -1 is not within 0 to 1024" {
		t.Errorf("got %v", err)
	}
}

// TestHealthPath: what is asked for is sent as it is given.
func TestHealthPath(t *testing.T) {
	for path, good := range map[string]bool{
		"/": true, "/readyz": true, "/livez?exclude=etcd&verbose": true, "/a%20b": true,
		"": false, "readyz": false, "https://a/readyz": false, "/a b": false, "/a?b c": false, "/readyz#etcd": false, "/ä": false, "/a%zz": false,
		"/readyz HTTP/1.1\r\nX: y": false, "/a\tb": false,
	} {
		c := config.Default()
		c.Backends.Static, c.Health.Path = []config.Static{{Address: "a:1"}}, path
		if err := c.Validate(); (err == nil) != good || err != nil && !strings.HasPrefix(err.Error(), "health.path: ") {
			t.Errorf("%q: got %v", path, err)
		}
	}
}

func FuzzDecode(f *testing.F) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		f.Fatal("found no golden files")
	}
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			f.Fatal(err)
		}
		_, text, _ := strings.Cut(string(data), "-- config.yaml --\n")
		text, _, _ = strings.Cut(text, "-- want --")
		f.Add(text)
	}
	f.Add(header + "health: {interval: 9223372036s}")
	f.Fuzz(func(t *testing.T, text string) {
		c, err := config.Decode([]byte(text))
		if err != nil {
			return
		}
		_ = c.Validate()
		for range 2 {
			written, err := yaml.Marshal(c)
			if err != nil {
				t.Fatal(err)
			}
			again, err := config.Decode(written)
			if err != nil {
				t.Fatalf("what was written cannot be read: %v\n%s", err, written)
			}
			if diff := cmp.Diff(c, again, cmpopts.EquateEmpty(), cmp.Comparer(func(a, b time.Duration) bool { return a == b })); diff != "" {
				t.Fatalf("what was written reads otherwise (-written +read):\n%s", diff)
			}
			c = again
		}
	})
}
