package main_test

import (
	"context"
	"fmt"
	"maps"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/nftables"
	corev1 "k8s.io/api/core/v1"
	networkingv1 "k8s.io/api/networking/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/tools/clientcmd"

	"varco.dev/lab/internal/controlplane"
	"varco.dev/lab/internal/load"
)

// stickyURL is an address of the demo's Service with session affinity that leads to the first node.
const stickyURL = "http://198.51.100.21/"

// inspect asks a proxy what it does, in the forms for people and for programs.
func (l *lab) inspect(t *testing.T) {
	s, err := l.status(t, "node-1")
	if err != nil {
		t.Fatal(err)
	}
	if s.Node != "node-1" || !s.Ready || len(s.Problems) > 0 || len(s.Ports) < 20 {
		t.Errorf("status %+v", s)
	}
	for _, p := range s.Ports {
		if p.State != "done" {
			t.Errorf("Service %s is %s", p.Service, p.State)
		}
	}
	text, err := l.tell(t, "node-2", "explain", "10.240.0.12:30081", "--from", "203.0.113.10")
	if err != nil || !strings.Contains(text, "dropped without an answer") || !strings.Contains(text, "default/local") {
		t.Errorf("explanation %q, %v", text, err)
	}
	if _, err := l.tell(t, "node-1", "explain", "nonsense"); err == nil {
		t.Error("nonsense was explained")
	}
	if strings.Contains(l.log(t, "node-1"), "forbidden") {
		t.Error("a permission is missing, as the log says:\n" + l.log(t, "node-1"))
	}
}

// healthCheck asks the health check node port of the Service whose pods are all on node-1.
func (l *lab) healthCheck(t *testing.T) {
	client := &http.Client{Transport: &http.Transport{DialContext: l.open(t, "client").DialContext, DisableKeepAlives: true}}
	port := fmt.Sprint(l.service(t, "local").Spec.HealthCheckNodePort)
	for _, tc := range []struct {
		host   string
		status int
		weight string
	}{
		{"10.240.0.11", http.StatusOK, "2"}, {"fd00:240::b", http.StatusOK, "2"},
		{"10.240.0.12", http.StatusServiceUnavailable, "0"},
	} {
		resp, err := client.Get("http://" + net.JoinHostPort(tc.host, port) + "/healthz")
		if err != nil {
			t.Error(err)
			continue
		}
		resp.Body.Close()
		if got := resp.Header.Get("X-Load-Balancing-Endpoint-Weight"); resp.StatusCode != tc.status || got != tc.weight {
			t.Errorf("%s: status %d, weight %q; want %d, %q", tc.host, resp.StatusCode, got, tc.status, tc.weight)
		}
	}
}

// nftables opens the nftables of a node, as another program would.
func (l *lab) nftables(t *testing.T, node string) *nftables.Conn {
	t.Helper()
	conn, err := nftables.New(nftables.WithNetNSFd(l.open(t, node).FD()))
	if err != nil {
		t.Fatal(err)
	}
	return conn
}

// mostDamage is how long traffic may be without deleted rules. A table of Maglev, which the demo has, is 131,074 elements to
// read and write again, and takes most of it on a machine that has other work.
const mostDamage = 3 * time.Second

// deletedRules has another program delete the rules of node-1, and parts of them: traffic must work again at once.
func (l *lab) deletedRules(t *testing.T) {
	conn, client := l.nftables(t, "node-1"), l.open(t, "client")
	tables := []*nftables.Table{
		{Name: "varco-kube-proxy", Family: nftables.TableFamilyIPv4}, {Name: "varco-kube-proxy", Family: nftables.TableFamilyIPv6},
	}
	for name, damage := range map[string]func(*nftables.Table){
		"flush set":    func(t *nftables.Table) { conn.FlushSet(&nftables.Set{Table: t, Name: "services"}) },
		"flush table":  func(t *nftables.Table) { conn.FlushTable(t) },
		"delete table": func(t *nftables.Table) { conn.DelTable(t) },
	} {
		for _, table := range tables {
			damage(table)
		}
		begin := time.Now()
		if err := conn.Flush(); err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		for _, url := range []string{"http://198.51.100.10/", "http://[2001:db8:51::10]/"} {
			l.wait(t, url+" after "+name, func() (string, bool) {
				// A lost packet is sent again after a second: another connection tells sooner.
				return l.tryFor(t, client, load.Config{URL: url, Requests: 1, Timeout: 100 * time.Millisecond})
			})
		}
		took := time.Since(begin)
		t.Logf("%s: repaired within %s", name, took.Round(time.Millisecond))
		if took > mostDamage {
			t.Errorf("%s: traffic works again after %s", name, took)
		}
		time.Sleep(300 * time.Millisecond) // what is done again and again would be held back, which is not what is tested
	}
}

// killedProxy kills each node's proxy under load: nothing may fail, clients keep their pods, and what changes meanwhile is
// applied by the successor.
func (l *lab) killedProxy(t *testing.T) {
	l.try(t, l.open(t, "client"), stickyURL, 1) // requests at the same time may each be the first
	sticky, plain := l.askAt(t, "client", stickyURL), l.ask(t, "node-2", "echo")
	l.kill(t, "node-1")
	l.kill(t, "node-2")
	l.scale(t, 4) // applied by the successors only
	l.awaitBackends(t, "node-2", 4)
	l.awaitBackends(t, "node-1", 4)
	r := sticky()
	noneFailed(t, r)
	if len(r.ByPod) != 1 {
		t.Errorf("answers of a Service with session affinity came from %v", r.ByPod)
	}
	noneFailed(t, plain())
}

// leftovers makes what kube-proxy in mode nftables leaves behind, and starts the proxy anew.
func (l *lab) leftovers(t *testing.T) {
	conn := l.nftables(t, "node-2")
	table := conn.AddTable(&nftables.Table{Name: "kube-proxy", Family: nftables.TableFamilyIPv4})
	conn.AddChain(&nftables.Chain{
		Table: table, Name: "nat-prerouting", Type: nftables.ChainTypeNAT, Hooknum: nftables.ChainHookPrerouting,
		Priority: nftables.ChainPriorityNATDest,
	})
	if err := conn.Flush(); err != nil {
		t.Fatal(err)
	}
	stop := l.ask(t, "node-2", "echo")
	l.kill(t, "node-2")
	l.wait(t, "the table of kube-proxy to be removed", func() (string, bool) {
		tables, err := conn.ListTablesOfFamily(nftables.TableFamilyIPv4)
		gone := !slices.ContainsFunc(tables, func(x *nftables.Table) bool { return x.Name == table.Name })
		return fmt.Sprintf("%d tables, %v", len(tables), err), err == nil && gone
	})
	noneFailed(t, stop())
}

// settled returns how many transactions there were on nodes once what was under way is applied.
func (l *lab) settled(t *testing.T, nodes ...string) map[string]uint32 {
	t.Helper()
	last := map[string]uint32{}
	l.wait(t, "the proxies to have nothing to apply", func() (string, bool) {
		now := map[string]uint32{}
		for _, node := range nodes {
			now[node] = l.commits(t, node)
		}
		same := maps.Equal(now, last)
		last = now
		time.Sleep(2 * time.Second) // that nothing is applied cannot be waited for
		return fmt.Sprint(now), same
	})
	return last
}

// outage is how long the API server is away: longer than the proxy waits until it says so.
const outage = 11 * time.Second

// withoutAPIServer ends the API server under load: traffic goes on, nothing is written again when it is back, and what
// changes later is applied.
func (l *lab) withoutAPIServer(t *testing.T) {
	stop, g := l.ask(t, "node-1", "echo"), l.gateway(t)
	watching := do(t, http.DefaultClient, g.request(t, http.MethodGet, "/api/v1/namespaces?watch=true"))
	if err := l.Stop(t.Context(), "kube-apiserver", 0); err != nil {
		t.Fatal(err)
	}
	g.withoutAPIServer(t, watching)
	before := l.settled(t, "node-1", "node-2")
	time.Sleep(outage) // the time without an API server is what is tested
	if err := l.Start(t.Context(), "kube-apiserver"); err != nil {
		t.Fatal(err)
	}
	l.wait(t, "the API server", func() (string, bool) {
		_, err := l.client.Discovery().ServerVersion()
		return fmt.Sprint(err), err == nil
	})
	g.client(t)
	for _, node := range []string{"node-1", "node-2"} {
		l.wait(t, "the proxy to say that the API server is back", func() (string, bool) {
			text := l.log(t, node)
			return text, strings.Contains(text, "lost the API server") && strings.Contains(text, "the API server is back")
		})
		if got := l.commits(t, node) - before[node]; got > 0 {
			t.Errorf("%s: the API server away and back led to %d transactions", node, got)
		}
	}
	patch := []byte(`{"spec":{"externalIPs":["198.51.100.20","198.51.100.99","2001:db8:51::20"]}}`)
	_, err := l.client.CoreV1().Services(metav1.NamespaceDefault).
		Patch(t.Context(), "echo-external", types.MergePatchType, patch, metav1.PatchOptions{})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	l.answers(t, "client", "198.51.100.99")
	t.Logf("a change after the outage is served after %s", time.Since(begin).Round(time.Millisecond))
	noneFailed(t, stop())
}

// changedConfig takes localhost from the addresses at which NodePorts are served: running proxies take that over.
func (l *lab) changedConfig(t *testing.T) {
	maps := l.client.CoreV1().ConfigMaps(metav1.NamespaceSystem)
	m, err := maps.Get(t.Context(), "kube-proxy", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	const old = "nodePortAddresses: [primary, localhost]"
	if !strings.Contains(m.Data["config.conf"], old) {
		t.Fatalf("configuration %q", m.Data["config.conf"])
	}
	node := l.open(t, "node-2")
	const url = "http://127.0.0.1:30080/"
	if failures, ok := l.try(t, node, url, 5); !ok {
		t.Errorf("before: %s", failures)
	}
	stop, pid := l.ask(t, "node-2", "echo"), l.pid(t, "node-2")
	m.Data["config.conf"] = strings.Replace(m.Data["config.conf"], old, "nodePortAddresses: [primary]", 1)
	if _, err := maps.Update(t.Context(), m, metav1.UpdateOptions{}); err != nil {
		t.Fatal(err)
	}
	l.wait(t, "NodePorts to leave localhost", func() (string, bool) {
		failures, _ := l.try(t, node, url, 1)
		return failures, strings.Contains(failures, "connection refused")
	})
	noneFailed(t, stop())
	if now := l.pid(t, "node-2"); now != pid {
		t.Errorf("process %d has become %d", pid, now)
	}
	l.wait(t, "node-1 to take the configuration over too", func() (string, bool) {
		s, err := l.status(t, "node-1")
		return fmt.Sprint(s, err), err == nil && s.Ready && !slices.Contains(s.NodePortAddresses, "127.0.0.1")
	})
}

// twoCopies runs a second proxy on a node, as while one release takes the place of another. They must agree: no request
// fails, clients keep their pods, and they do not write over each other.
func (l *lab) twoCopies(t *testing.T) {
	l.try(t, l.open(t, "client"), stickyURL, 1) // requests at the same time may each be the first
	sticky := l.askAt(t, "client", stickyURL)
	begin, commits := time.Now(), l.commits(t, "node-1")
	end := l.secondProxy(t, "node-1")
	time.Sleep(4 * time.Second) // the time of both is what is tested
	r := sticky()
	noneFailed(t, r)
	if len(r.ByPod) != 1 {
		t.Errorf("answers of a Service with session affinity came from %v", r.ByPod)
	}
	// Of a change, both want to be the one that writes it.
	plain := l.askAt(t, "client", stickyURL)
	l.scale(t, 5)
	l.awaitBackends(t, "node-1", 5)
	end()
	noneFailed(t, plain())
	rate := float64(l.commits(t, "node-1")-commits) / time.Since(begin).Seconds()
	t.Logf("%.1f transactions a second", rate)
	if rate > 10 {
		t.Errorf("two copies make %.1f transactions a second", rate)
	}
}

// secondProxy starts another varco kube-proxy on a node, with the same configuration; end ends it and prints its log if
// the test failed.
func (l *lab) secondProxy(t *testing.T, node string) (end func()) {
	t.Helper()
	m, err := l.client.CoreV1().ConfigMaps(metav1.NamespaceSystem).Get(t.Context(), "kube-proxy", metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	access, conf := filepath.Join(dir, "kubeconfig"), filepath.Join(dir, "config.conf")
	text := strings.Replace(m.Data["config.conf"], "/var/lib/kube-proxy/kubeconfig.conf", access, 1)
	text += "healthzBindAddress: 127.0.0.1:20256\nmetricsBindAddress: 127.0.0.1:20249\n"
	if err := os.WriteFile(conf, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	l.writeAccess(t, access)
	log, err := os.Create(filepath.Join(dir, "log"))
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cmd := exec.CommandContext(ctx, l.varco, "kube-proxy", "--config", conf, "--hostname-override", node,
		"--status-socket", filepath.Join(dir, "socket"))
	cmd.Cancel = func() error { return cmd.Process.Signal(os.Interrupt) }
	cmd.WaitDelay = 10 * time.Second
	cmd.Stdout, cmd.Stderr = log, log
	if err := l.open(t, node).Do(cmd.Start); err != nil {
		t.Fatal(err)
	}
	return func() {
		cancel()
		if err := cmd.Wait(); err != nil && !cmd.ProcessState.Success() {
			t.Errorf("the second proxy: %v", err)
		}
		if text, _ := os.ReadFile(log.Name()); t.Failed() {
			t.Logf("log of the second proxy:\n%s", text)
		}
		log.Close()
	}
}

// writeAccess writes a kubeconfig that works from the nodes.
func (l *lab) writeAccess(t *testing.T, path string) {
	t.Helper()
	text, err := l.Kubeconfig()
	if err != nil {
		t.Fatal(err)
	}
	access, err := clientcmd.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range access.Clusters {
		c.Server = controlplane.NewHost("", controlplane.FirstControlPlane).APIServer()
	}
	if err := clientcmd.WriteToFile(*access, path); err != nil {
		t.Fatal(err)
	}
}

// nodeAddress gives a node another address: its NodePorts are served there at once.
func (l *lab) nodeAddress(t *testing.T) {
	node, client, pid := l.open(t, "node-2"), l.open(t, "client"), l.pid(t, "node-2")
	added := netip.MustParsePrefix("10.240.0.112/16")
	if err := node.AddAddr("eth0", added); err != nil {
		t.Fatal(err)
	}
	url := "http://" + added.Addr().String() + ":30080/"
	if _, ok := l.try(t, client, url, 1); ok {
		t.Error("NodePorts are served at an address that the Node does not have")
	}
	patch := []byte(`{"status":{"addresses":[{"type":"InternalIP","address":"10.240.0.112"},{"type":"InternalIP","address":"fd00:240::c"}]}}`)
	begin := time.Now()
	l.wait(t, "NodePorts at the new address", func() (string, bool) {
		// The node agent takes the address away every ten seconds.
		_, err := l.client.CoreV1().Nodes().Patch(t.Context(), "node-2", types.MergePatchType, patch, metav1.PatchOptions{}, "status")
		if err != nil {
			return err.Error(), false
		}
		return l.try(t, client, url, 1)
	})
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the new address is served after %s", took)
	}
	if now := l.pid(t, "node-2"); now != pid {
		t.Errorf("process %d has become %d", pid, now)
	}
}

// serviceCIDR adds a network of ClusterIPs: connections to addresses of it that no Service has are dropped at once.
func (l *lab) serviceCIDR(t *testing.T) {
	conn := l.nftables(t, "node-1")
	networks := func() int {
		table := &nftables.Table{Name: "varco-kube-proxy", Family: nftables.TableFamilyIPv4}
		set, err := conn.GetSetByName(table, "service-cidrs")
		if err != nil {
			t.Fatal(err)
		}
		elements, err := conn.GetSetElements(set)
		if err != nil {
			t.Fatal(err)
		}
		return len(elements)
	}
	before := networks()
	cidrs := l.client.NetworkingV1().ServiceCIDRs()
	_, err := cidrs.Create(t.Context(), &networkingv1.ServiceCIDR{
		ObjectMeta: metav1.ObjectMeta{Name: "more"}, Spec: networkingv1.ServiceCIDRSpec{CIDRs: []string{"10.97.0.0/24"}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	begin := time.Now()
	l.wait(t, "the new network to be in the kernel", func() (string, bool) {
		now := networks()
		return fmt.Sprintf("%d elements, before %d", now, before), now > before
	})
	if took := time.Since(begin); took > 2*time.Second {
		t.Errorf("the new network is in the kernel after %s", took)
	}
	text, err := l.tell(t, "node-1", "explain", "10.97.0.7:80")
	if err != nil || !strings.Contains(text, "dropped without an answer") {
		t.Errorf("explanation %q, %v", text, err)
	}
	failures, _ := l.try(t, l.open(t, "default/visitor"), "http://10.97.0.7/", 1)
	if !strings.Contains(failures, "no answer") {
		t.Errorf("connections to the network: %s", failures)
	}
	if err := cidrs.Delete(t.Context(), "more", metav1.DeleteOptions{}); err != nil {
		t.Error(err)
	}
}

// mostLost is the share of connections that may fail while pods are ended by force, and known how long after its end, at
// most, all nodes know that a pod is gone.
const (
	mostLost = 0.05
	known    = 2 * time.Second
)

// forcedPods deletes pods without a grace period while thousands of connections are opened. Connections to a pod of which
// nobody knows yet that it is dead are lost, and with them whoever uses their ports again: conntrack keeps such a connection,
// and where it was sent, for two minutes.
func (l *lab) forcedPods(t *testing.T) {
	node := l.open(t, "node-2")
	var last, late atomic.Int64 // last: when a pod was deleted, in nanoseconds
	dial := func(ctx context.Context, network, address string) (net.Conn, error) {
		begin := time.Now()
		c, err := node.DialContext(ctx, network, address)
		if err != nil && begin.Sub(time.Unix(0, last.Load())) > known {
			late.Add(1)
		}
		return c, err
	}
	hold, reports := make(chan struct{}), make(chan *load.Report, 1)
	go func() {
		r, err := load.Run(t.Context(), load.Config{
			URL:  "tcp://" + net.JoinHostPort(l.service(t, "echo").Spec.ClusterIP, "7000"),
			Dial: dial, Requests: 1, Hold: hold, Concurrency: 64, Rate: 2500, Timeout: 2 * time.Second,
		})
		if err != nil {
			t.Error(err)
		}
		reports <- r
	}()
	for range 2 {
		last.Store(time.Now().UnixNano())
		l.endByForce(t)
		time.Sleep(known) // and some load when the end is known
	}
	close(hold)
	r := <-reports
	t.Logf("%d connections, %d failed, of them %d begun when the end of the pod was known: %s", r.Requests, r.Failed, late.Load(),
		strings.Join(r.Failures(), "; "))
	if r.Requests < 1000 || float64(r.Failed) > mostLost*float64(r.Requests) {
		t.Errorf("%d of %d connections failed", r.Failed, r.Requests)
	}
}

// endByForce deletes a pod of the Deployment without a grace period, and waits until another has taken its place.
func (l *lab) endByForce(t *testing.T) {
	t.Helper()
	list := func() []corev1.Pod {
		pods, err := l.client.CoreV1().Pods(metav1.NamespaceDefault).List(t.Context(), metav1.ListOptions{LabelSelector: "app=echo"})
		if err != nil {
			t.Fatal(err)
		}
		return pods.Items
	}
	before := list()
	zero := int64(0)
	err := l.client.CoreV1().Pods(metav1.NamespaceDefault).
		Delete(t.Context(), before[0].Name, metav1.DeleteOptions{GracePeriodSeconds: &zero})
	if err != nil {
		t.Fatal(err)
	}
	l.wait(t, "other pods to be ready", func() (string, bool) {
		ready := 0
		for _, p := range list() {
			for _, c := range p.Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		return fmt.Sprintf("%d of %d ready", ready, len(before)), ready == len(before)
	})
}
