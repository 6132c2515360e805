package main_test

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"varco.dev/lab/internal/controlplane"
)

// configure writes the balancer's configuration, as an editor does: a new file in the old one's place.
func (b *balanced) configure(t *testing.T, text string) {
	t.Helper()
	path := b.layout.BalancerConfig()
	if err := os.WriteFile(path+".new", []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		t.Fatal(err)
	}
}

// reconfigured changes the configuration of the running balancer: what is valid is taken over, at once or at SIGHUP, and what
// is not changes nothing.
func (b *balanced) reconfigured(t *testing.T) {
	full := b.layout.BalancerText(b.layout.Servers())
	two := strings.Replace(b.layout.BalancerText(b.layout.Servers()[:2]), "kubernetes:", "# kubernetes:", 1)
	s, err := b.status(t)
	if err != nil {
		t.Fatal(err)
	}
	began := s.Started
	r := b.during(t, "configuration changed", 0, func() {
		b.configure(t, two)
		b.awaitBackendsOf(t, 2)
		b.configure(t, "listeners: nonsense\n"+full)
		b.signal(t, controlplane.BalancerName, unix.SIGHUP)
		b.wait(t, "the balancer to refuse nonsense", func() (string, bool) {
			text := b.logOf(t, controlplane.BalancerName)
			return text, strings.Contains(text, "nonsense") || strings.Contains(text, "config")
		})
		b.awaitBackendsOf(t, 2)
		b.configure(t, full)
		b.signal(t, controlplane.BalancerName, unix.SIGHUP)
		b.awaitStates(t, nil)
	})
	nothingFails(t, r)
	if s, err = b.status(t); err != nil || !s.Started.Equal(began) {
		t.Errorf("the balancer is another: started %s, before %s, %v", s.Started, began, err)
	}
}

// awaitBackendsOf waits until new connections go to so many backends.
func (b *balanced) awaitBackendsOf(t *testing.T, backends int) {
	t.Helper()
	b.wait(t, fmt.Sprintf("%d backends", backends), func() (string, bool) {
		s, err := b.status(t)
		n := 0
		for _, one := range s.Backends {
			if one.Source != "" {
				n++
			}
		}
		return describe(s, err), err == nil && n == backends
	})
}

func (b *balanced) logOf(t *testing.T, component string) string {
	t.Helper()
	list, err := b.Components(context.WithoutCancel(t.Context())) // for a test that ends too
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range list {
		if c.Name == component {
			text, err := os.ReadFile(c.Log)
			if err != nil {
				t.Fatal(err)
			}
			return string(text)
		}
	}
	t.Fatalf("no component %s", component)
	return ""
}

// upgraded starts a second balancer, which takes the listeners over from the first: nothing fails, and the first ends.
func (b *balanced) upgraded(t *testing.T) {
	at := netip.AddrPortFrom(b.balancer().Addrs[0], controlplane.BalancerMetricsPort)
	from := b.open(t, controlplane.BalancerName)
	second := exec.Command(b.varco, "apiserver-lb", "--config="+b.layout.BalancerConfig())
	log, err := os.Create(filepath.Join(t.TempDir(), "log"))
	if err != nil {
		t.Fatal(err)
	}
	second.Stdout, second.Stderr = log, log
	ended := make(chan error, 1)
	first, err := b.status(t)
	if err != nil {
		t.Fatal(err)
	}
	r := b.during(t, "upgrade", 0, func() {
		if err := from.Start(second); err != nil {
			t.Fatal(err)
		}
		go func() { ended <- second.Wait() }()
		b.wait(t, "the first balancer to end", func() (string, bool) {
			list, err := b.Components(t.Context())
			for _, c := range list {
				if c.Name == controlplane.BalancerName {
					return fmt.Sprintf("%+v", c), c.State == "ended" && c.Error == "exit status 0"
				}
			}
			return fmt.Sprint(err), false
		})
	})
	nothingFails(t, r)
	if r.Watches.MostRelists > 1 {
		t.Errorf("an informer asked for all objects %d times", r.Watches.MostRelists)
	}
	s, err := statusAt(t.Context(), b.client, at)
	if err != nil || s.Started.Equal(first.Started) {
		t.Errorf("the second balancer's status: %s", describe(s, err))
	}
	// And back again, to the lab's own.
	r = b.during(t, "upgrade once more", 0, func() {
		b.start(t, controlplane.BalancerName)
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("the second balancer: %v", err)
			}
		case <-time.After(patience):
			t.Error("the second balancer does not end")
			_ = second.Process.Kill()
			<-ended
		}
	})
	nothingFails(t, r)
	if text, _ := os.ReadFile(log.Name()); t.Failed() {
		t.Logf("log of the second balancer:\n%s", text)
	}
	log.Close()
}

// Answers of the resolver of a test.
const (
	dnsAll = iota
	dnsTwo
	dnsNone // the name exists, and has no addresses
	dnsFails
	dnsHangs
)

// namesFail runs another balancer, which knows its backends by a name: when that does not resolve any more, it goes on with
// what it knows.
func (b *balanced) namesFail(t *testing.T) {
	machine := b.open(t, "node-1")
	conn, err := machine.ListenPacket("udp", "127.0.0.153:53")
	if err != nil {
		t.Fatal(err)
	}
	var mode atomic.Int32
	go b.resolve(conn, &mode)
	t.Cleanup(func() { conn.Close() })
	dir := t.TempDir()
	config := filepath.Join(dir, "config.yaml")
	text := fmt.Sprintf(`{apiVersion: apiserverlb.varco.dev/v1alpha1, kind: APIServerLBConfiguration,
listeners: [{address: "10.240.0.11:7443"}],
backends: {static: ["apiservers.lab.test:6443"], dnsPeriod: 1s},
health: {caFile: %s},
metricsAddress: "10.240.0.11:7444"}`, b.layout.ClientCA())
	for name, text := range map[string]string{config: text, filepath.Join(dir, "resolv.conf"): "nameserver 127.0.0.153\noptions timeout:1 attempts:1\n"} {
		if err := os.WriteFile(name, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	cmd := exec.CommandContext(t.Context(), b.varco, "apiserver-lb", "--config="+config)
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	cmd.Stdout, cmd.Stderr = log, log
	if err := machine.Do(func() error { return startWith(cmd, filepath.Join(dir, "resolv.conf")) }); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("log of the balancer:\n%s", text)
		}
		log.Close()
	})
	at := netip.MustParseAddrPort("10.240.0.11:7444")
	backends := func(want int) {
		t.Helper()
		b.wait(t, fmt.Sprintf("%d backends", want), func() (string, bool) {
			s, err := statusAt(t.Context(), b.client, at)
			up := 0
			for _, one := range s.Backends {
				if one.State == "Up" && one.Source != "" {
					up++
				}
			}
			return describe(s, err), err == nil && up == want
		})
	}
	backends(3)
	for _, bad := range []int32{dnsFails, dnsHangs, dnsNone} {
		mode.Store(bad)
		time.Sleep(3 * time.Second) // for some questions to go unanswered
		backends(3)
	}
	mode.Store(dnsTwo)
	backends(2)
	mode.Store(dnsAll)
	backends(3)
}

// startWith starts a program that sees another file as /etc/resolv.conf. It must run on a thread that ends with it.
func startWith(cmd *exec.Cmd, resolvConf string) error {
	if err := unix.Unshare(unix.CLONE_NEWNS); err != nil {
		return fmt.Errorf("separate mounts: %w", err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("separate mounts: %w", err)
	}
	if err := unix.Mount(resolvConf, "/etc/resolv.conf", "", unix.MS_BIND, ""); err != nil {
		return fmt.Errorf("mount /etc/resolv.conf: %w", err)
	}
	return cmd.Start()
}

// resolve answers every question for addresses (RFC 1035, section 4) with those of the control planes, as the mode says.
func (b *balanced) resolve(conn net.PacketConn, mode *atomic.Int32) {
	buf := make([]byte, 1500)
	for {
		n, client, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		if answer := b.answer(buf[:n], mode.Load()); answer != nil {
			_, _ = conn.WriteTo(answer, client) // whoever misses it asks again
		}
	}
}

func (b *balanced) answer(question []byte, mode int32) []byte {
	const header = 12
	end := header
	for end < len(question) && question[end] != 0 {
		end += 1 + int(question[end])
	}
	end += 5 // the name's end, type and class
	if end > len(question) || mode == dnsHangs {
		return nil
	}
	out := append([]byte{}, question[:end]...)
	copy(out[2:header], []byte{0x81, 0x80, 0, 1, 0, 0, 0, 0, 0, 0})
	if mode == dnsFails {
		out[3] |= 2 // SERVFAIL
		return out
	}
	hosts := map[int32][]controlplane.Host{dnsAll: b.layout.ControlPlanes, dnsTwo: b.layout.ControlPlanes[:2]}[mode]
	if question[end-3] != 1 { // no IPv4 addresses are asked for
		return out
	}
	for _, h := range hosts {
		out = append(out, 0xc0, header, 0, 1, 0, 1, 0, 0, 0, 1, 0, 4) // the question's name, A, IN, for a second
		out = append(out, h.Addrs[0].AsSlice()...)
		out[7]++
	}
	return out
}
