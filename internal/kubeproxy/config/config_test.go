package config_test

import (
	"bytes"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"varco.dev/internal/kubeproxy/config"
)

const header = "apiVersion: kubeproxy.config.k8s.io/v1alpha1\nkind: KubeProxyConfiguration\n"

// plain is a Config without its own Equal.
type plain config.Config

// compare looks at all fields but the notes.
func compare(t *testing.T, want, got config.Config) {
	t.Helper()
	diff := cmp.Diff(plain(want), plain(got), cmpopts.EquateEmpty(), cmpopts.IgnoreUnexported(plain{}),
		cmpopts.IgnoreFields(plain{}, "Notes"), cmpopts.EquateComparable(netip.Addr{}, netip.AddrPort{}, netip.Prefix{}))
	if diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

func prefixes(list ...string) (out []netip.Prefix) {
	for _, s := range list {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// write makes a file in a folder of the test and returns its path.
func write(t testing.TB, content string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "config.conf")
	if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func mustLoad(t testing.TB, args ...string) config.Config {
	t.Helper()
	c, err := options(t, args...).Load()
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func TestDefaults(t *testing.T) {
	want := config.Config{
		Mode:        config.ModeIPTables,
		Health:      netip.MustParseAddrPort("0.0.0.0:10256"),
		Metrics:     netip.MustParseAddrPort("127.0.0.1:10249"),
		Client:      config.Client{QPS: 5, Burst: 10, ContentType: "application/vnd.kubernetes.protobuf"},
		DetectLocal: config.DetectLocal{Mode: config.ByClusterCIDR},
		ExternalIPs: true,
		NodePorts:   config.NodePorts{Networks: prefixes("0.0.0.0/0", "127.0.0.0/8")}, // as upstream's mode iptables
		Masquerade:  config.Masquerade{Bit: 14},
		Conntrack: config.Conntrack{
			MaxPerCore: 32768, Min: 131072, TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour,
		},
		OOMScoreAdj: -999,
		Logging:     config.Logging{Format: "text"},
		SyncPeriod:  30 * time.Second,
		Own:         config.Own{StatusSocket: "/run/varco/kube-proxy.sock", Counters: config.CountNothing},
	}
	compare(t, want, mustLoad(t))
}

// TestTyped looks at what flags and fields become.
func TestTyped(t *testing.T) {
	file := write(t, header+`
mode: nftables
bindAddress: 010.0.0.1
hostnameOverride: " Node-1 "
healthzBindAddress: "::"
bindAddressHardFail: true
enableProfiling: true
clusterCIDR: 10.244.7.7/16,fd00:244::/48
nodePortAddresses: [primary, 127.0.0.1/32, 192.0.2.9/24]
nftables: {masqueradeBit: 31, masqueradeAll: true, syncPeriod: 5s, minSyncPeriod: 10ms}
iptables: {masqueradeBit: 3}
featureGates: {AllowServiceExternalIPs: false}
logging: {format: json, verbosity: 3}
clientConnection: {kubeconfig: /k, qps: 50, burst: 100, acceptContentTypes: application/json}
conntrack: {maxPerCore: 0, udpTimeout: 10s, udpStreamTimeout: 20s, tcpBeLiberal: true}
`)
	got := mustLoad(t, "--config="+file, "--master=https://m", "--drain-tcp", "--status-socket=",
		"--remove-taint=example.com/wait=yes:NoExecute", "--service-counters=all", "--local-reject")
	want := config.Config{
		Mode:             config.ModeNFTables,
		HostnameOverride: "node-1",
		NodeIP:           netip.MustParseAddr("10.0.0.1"),
		Health:           netip.MustParseAddrPort("[::]:10256"),
		Metrics:          netip.MustParseAddrPort("127.0.0.1:10249"),
		BindHardFail:     true,
		Profiling:        true,
		Client: config.Client{
			Kubeconfig: "/k", Master: "https://m", QPS: 50, Burst: 100,
			ContentType: "application/vnd.kubernetes.protobuf", AcceptContentTypes: "application/json",
		},
		DetectLocal: config.DetectLocal{Mode: config.ByClusterCIDR, CIDRs: prefixes("10.244.0.0/16", "fd00:244::/48")},
		NodePorts: config.NodePorts{
			Words: []string{"primary", "127.0.0.1/32", "192.0.2.9/24"}, Primary: true, Networks: prefixes("127.0.0.1/32", "192.0.2.0/24"),
		},
		Masquerade: config.Masquerade{Bit: 31, All: true},
		Conntrack: config.Conntrack{
			Min: 131072, TCPEstablished: 24 * time.Hour, TCPCloseWait: time.Hour, TCPBeLiberal: true,
			UDP: 10 * time.Second, UDPStream: 20 * time.Second,
		},
		OOMScoreAdj:   -999,
		Logging:       config.Logging{Format: "json", Verbosity: 3},
		FeatureGates:  map[string]bool{"AllowServiceExternalIPs": false},
		SyncPeriod:    5 * time.Second,
		MinSyncPeriod: 10 * time.Millisecond,
		Own: config.Own{
			LocalReject: true, DrainTCP: true, Counters: config.CountAll,
			RemoveTaint: config.Taint{Key: "example.com/wait", Value: "yes", Effect: "NoExecute"},
		},
	}
	compare(t, want, got)
	if got.Masquerade.Mark() != 1<<31 {
		t.Errorf("got the mark %#x", got.Masquerade.Mark())
	}
	if !got.NodePorts.Localhost(true) || got.NodePorts.Localhost(false) {
		t.Error("127.0.0.1/32 is localhost of IPv4 alone")
	}
}

func orTrue(word string) string {
	if word == "" {
		return "true"
	}
	return word
}

func TestLocalhost(t *testing.T) {
	for flags, want := range map[string][2]bool{ // IPv4, IPv6
		"nftables":                 {},
		"nftables primary":         {},
		"nftables all":             {},
		"nftables 0.0.0.0/0":       {},
		"nftables localhost":       {true, true},
		"nftables ::1/128":         {false, true},
		"nftables 127.1.0.0/16":    {true, false},
		"iptables":                 {true, false}, // upstream's default in this mode
		"iptables all":             {true, false},
		"iptables primary":         {},
		"iptables 192.0.2.0/24":    {},
		"iptables 2001:db8::/64":   {true, false},
		"ipvs all":                 {},
		"iptables all false":       {},
		"iptables primary,::1/128": {false, true},
	} {
		words := append(strings.Fields(flags), "", "")
		n := mustLoad(t, "--proxy-mode="+words[0], "--nodeport-addresses="+words[1], "--iptables-localhost-nodeports="+orTrue(words[2])).NodePorts
		if got := [2]bool{n.Localhost(true), n.Localhost(false)}; got != want {
			t.Errorf("%s: got %v, want %v", flags, got, want)
		}
	}
}

// TestPause is about the least pause between changes: none, unless one was asked for.
func TestPause(t *testing.T) {
	for _, c := range []struct {
		args []string
		want time.Duration
	}{
		{nil, 0},
		{[]string{"--iptables-min-sync-period=1s"}, time.Second},
		{[]string{"--iptables-min-sync-period=2s", "--proxy-mode=nftables"}, 2 * time.Second},
		{[]string{"--iptables-min-sync-period=2s", "--proxy-mode=ipvs"}, 0},
		{[]string{"--ipvs-min-sync-period=2s", "--proxy-mode=ipvs"}, 2 * time.Second},
		{[]string{"--config=" + write(t, header)}, 0},
		{[]string{"--config=" + write(t, header+"iptables: {minSyncPeriod: 1s}")}, time.Second},
		{[]string{"--config=" + write(t, header+"mode: nftables\niptables: {minSyncPeriod: 1s}")}, 0},
		{[]string{"--config=" + write(t, header), "--iptables-min-sync-period=2s"}, 0},
	} {
		if got := mustLoad(t, c.args...).MinSyncPeriod; got != c.want {
			t.Errorf("%v: got %v, want %v", c.args, got, c.want)
		}
	}
}

func TestTaint(t *testing.T) {
	for _, c := range []struct {
		text string
		want config.Taint
		err  string // part of the error
	}{
		{"", config.Taint{}, ""},
		{"wait", config.Taint{Key: "wait"}, ""},
		{"wait=", config.Taint{Key: "wait"}, ""},
		{"wait:NoSchedule", config.Taint{Key: "wait", Effect: "NoSchedule"}, ""},
		{"a.example/wait=x:PreferNoSchedule", config.Taint{Key: "a.example/wait", Value: "x", Effect: "PreferNoSchedule"}, ""},
		{"wait:", config.Taint{}, "none of NoSchedule"},
		{"wait:Never", config.Taint{}, "none of NoSchedule"},
		{"=x", config.Taint{}, "is not a key"},
		{"a=b c", config.Taint{}, "is not a value"},
	} {
		got, err := options(t, "--remove-taint="+c.text).Load()
		switch {
		case c.err != "":
			if err == nil || !strings.Contains(err.Error(), c.err) {
				t.Errorf("%q: got error %v, want %q", c.text, err, c.err)
			}
		case err != nil || got.Own.RemoveTaint != c.want:
			t.Errorf("%q: got %+v, %v", c.text, got.Own.RemoveTaint, err)
		}
	}
}

func TestGates(t *testing.T) {
	c := mustLoad(t, "--feature-gates=AllAlpha=true,ComponentFlagz=false,Unheard=true")
	for name, want := range map[string]bool{
		"LoggingAlphaOptions": true, "ComponentFlagz": false, "ComponentStatusz": true, "AllowServiceExternalIPs": true,
		"Unheard": true, "NeverGiven": false,
	} {
		if c.Gate(name) != want {
			t.Errorf("gate %s is %t", name, !want)
		}
	}
}

// TestEffective loads what was written and finds the same, and the whole text has upstream's form.
func TestEffective(t *testing.T) {
	c := mustLoad(t, "--proxy-mode=ipvs", "--masquerade-all", "--cluster-cidr=10.0.0.0/8", "--ipvs-min-sync-period=1s")
	again := mustLoad(t, "--config="+write(t, string(c.Effective())))
	if diff := cmp.Diff(string(c.Effective()), string(again.Effective())); diff != "" {
		t.Errorf("(-written +read):\n%s", diff)
	}
	want, err := os.ReadFile("testdata/effective.yaml")
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(string(want), string(mustLoad(t).Effective())); diff != "" {
		t.Errorf("(-want +got):\n%s", diff)
	}
}

// TestLoadIsRepeatable loads twice with the same options, and finds nothing left over from the first time.
func TestLoadIsRepeatable(t *testing.T) {
	o := options(t, "--feature-gates=A=true", "--vmodule=a=1", "--masquerade-all", "--config="+write(t, header+"logging: {vmodule: [{filePattern: b, verbosity: 2}]}"))
	one, err := o.Load()
	if err != nil {
		t.Fatal(err)
	}
	two, err := o.Load()
	if err != nil || !one.Equal(two) || !bytes.Equal(one.Effective(), two.Effective()) {
		t.Errorf("got another configuration (%v): %s", err, cmp.Diff(string(one.Effective()), string(two.Effective())))
	}
}

func TestUnreadable(t *testing.T) {
	for path, want := range map[string]string{
		"/nonexistent":                           "no such file",
		t.TempDir():                              "is a directory",
		write(t, strings.Repeat("# pad\n", 1e6)): "more than 1048576 bytes",
	} {
		if _, err := options(t, "--config="+path).Load(); err == nil || !strings.Contains(err.Error(), want) || !strings.Contains(err.Error(), path) {
			t.Errorf("got error %v, want %q", err, want)
		}
	}
}

func FuzzDecode(f *testing.F) {
	for _, seed := range []string{
		header, header + "mode: nftables\nclusterCIDR: 10.0.0.0/8", header + "conntrack: {min: x}", "{", "a: &a [*a]",
		`{"apiVersion":"kubeproxy.config.k8s.io/v1alpha1","kind":"KubeProxyConfiguration","iptables":{"syncPeriod":1}}`,
	} {
		f.Add(seed)
	}
	path := write(f, "")
	f.Fuzz(func(t *testing.T, text string) {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		c, err := options(t, "--config="+path).Load()
		if err != nil {
			return
		}
		again, err := options(t, "--config="+write(t, string(c.Effective()))).Load()
		if err != nil {
			t.Fatalf("what was written cannot be read: %v\n%s", err, c.Effective())
		}
		if diff := cmp.Diff(string(c.Effective()), string(again.Effective())); diff != "" {
			t.Fatalf("what was written reads otherwise (-written +read):\n%s", diff)
		}
	})
}
