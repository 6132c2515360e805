package kubeproxy_test

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/mdlayher/netlink"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/kernel"
	"varco.dev/internal/kubeproxy"
	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/nettest"
	"varco.dev/internal/service"
)

// childAPI is the variable by which this program, started again, is a proxy for node-1 instead of the tests.
const childAPI = "VARCO_TEST_PROXY_FOR"

func TestMain(m *testing.M) {
	if url := os.Getenv(childAPI); url != "" {
		os.Exit(beProxy(url))
	}
	os.Exit(m.Run())
}

// beProxy serves until it is killed.
func beProxy(url string) int {
	t := &testing.T{} // of which only the messages of a failure would be lost
	k := nft.NewNetlink(soleConfig(0))
	p := kubeproxy.New(kubeproxy.Config{
		Settings: settings(t, "--nodeport-addresses=primary", "--healthz-bind-address=", "--metrics-bind-address="),
		Client:   clientOf(t, url), NodeName: "node-1", Families: bothFamilies(), Plane: nft.New(k), Kernel: k,
		Flows: kernel.NewConntrack(0), Log: slog.New(slog.NewTextHandler(os.Stderr, nil)),
	})
	if err := p.Run(context.Background()); err != nil {
		fmt.Fprintln(os.Stderr, err)
		return 1
	}
	return 0
}

func bothFamilies() []service.Family { return []service.Family{service.IPv4, service.IPv6} }

// soleConfig is for the rules of a sole node in a network namespace, 0 for the own one.
func soleConfig(netns int) nft.Config {
	return nft.Config{Families: bothFamilies(), MasqueradeMark: masqueradeBit, Counters: nft.CountAll, NetNS: netns}
}

// sole is a node that is all there is: its pods are echo servers named "a", "b" and "c" on their own ports of the node's
// addresses, and clients are on the node.
type sole struct {
	t   *testing.T
	ns  *nettest.Namespace
	api *apiStub
	// look reads the kernel as an observer does.
	look    *nft.Netlink
	asker   *netlink.Conn // for generation; closing one takes longer than what it is to measure
	markers int           // Services made by marker
}

// Where things are on the sole node.
const (
	soleAddr4, soleAddr6 = "10.240.0.11", "fd00:240::11"
	portOfA              = 8081 // that of b is the next one, and so on
)

// newSole makes the node, with an API server in it or with the machine.
func newSole(t *testing.T, apiInside bool) *sole {
	t.Helper()
	nettest.NeedRoot(t)
	ns, err := nettest.NewNamespace("node-1")
	s := &sole{t: t, ns: ns}
	s.must(err)
	t.Cleanup(func() { ns.Close() })
	for _, a := range []string{soleAddr4 + "/32", soleAddr6 + "/128"} {
		s.must(ns.AddAddr("lo", netip.MustParsePrefix(a)))
	}
	for _, p := range []string{"10.96.0.0/12", "fd00:96::/64"} {
		s.must(ns.AddRoute(netip.MustParsePrefix(p), netip.Addr{}, "lo"))
	}
	for i, name := range []string{"a", "b", "c"} {
		echo, err := nettest.StartEcho(ns, name, uint16(portOfA+i))
		s.must(err)
		t.Cleanup(func() { echo.Close() })
	}
	listen := net.Listen
	if apiInside {
		listen = ns.Listen
	}
	s.api = newAPIStub(t, listen)
	s.api.set(soleNode())
	s.asker, err = netlink.Dial(unix.NETLINK_NETFILTER, &netlink.Config{NetNS: ns.FD()})
	s.must(err)
	t.Cleanup(func() { s.asker.Close() })
	s.look = nft.NewNetlink(soleConfig(ns.FD()))
	t.Cleanup(func() { s.look.Close() })
	return s
}

func (s *sole) must(err error) {
	s.t.Helper()
	if err != nil {
		s.t.Fatal(err)
	}
}

func soleNode() *corev1.Node {
	n := &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1", Labels: map[string]string{corev1.LabelTopologyZone: "zone-a"}}}
	for _, a := range []string{soleAddr4, soleAddr6} {
		n.Status.Addresses = append(n.Status.Addresses, corev1.NodeAddress{Type: corev1.NodeInternalIP, Address: a})
	}
	return n
}

// serviceAt is a Service with one port at a ClusterIP.
func serviceAt(name, ip string) *corev1.Service {
	return &corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: name},
		Spec:       corev1.ServiceSpec{ClusterIP: ip, Ports: []corev1.ServicePort{{Port: 80, Protocol: corev1.ProtocolTCP}}},
	}
}

// sliceOf is the slice of a Service, with endpoints at one port.
func sliceOf(owner string, port int32, ips ...string) *discoveryv1.EndpointSlice {
	none, tcp := "", corev1.ProtocolTCP
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Namespace: "x", Name: owner, Labels: map[string]string{discoveryv1.LabelServiceName: owner}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &none, Port: &port, Protocol: &tcp}},
	}
	for _, ip := range ips {
		s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{Addresses: []string{ip}})
	}
	return s
}

// many are Services with two endpoints each, none of which answers.
func many(n int) (out []runtime.Object) {
	for i := range n {
		name := fmt.Sprintf("many-%d", i)
		out = append(out, serviceAt(name, fmt.Sprintf("10.97.%d.%d", i/250, 1+i%250)),
			sliceOf(name, 8080, fmt.Sprintf("10.245.%d.%d", i/250, 1+i%250), fmt.Sprintf("10.246.%d.%d", i/250, 1+i%250)))
	}
	return out
}

// running is a proxy that runs.
type running struct {
	t       *testing.T
	proxy   *kubeproxy.Proxy
	kernel  *watchedKernel
	log     *logBook
	netlink *nft.Netlink
	stop    func()
}

// run starts a proxy that applies through a kernel of its own, and returns once all Services are served.
func (s *sole) run(adjust ...func(*watchedKernel)) *running {
	s.t.Helper()
	netlink := nft.NewNetlink(soleConfig(s.ns.FD()))
	r := runWhole(s.t, clientOf(s.t, s.api.http.URL), &watchedKernel{kernel: netlink, changed: make(chan struct{}, 1)}, netlink,
		append(adjust, func(w *watchedKernel) { w.flows = kernel.NewConntrack(s.ns.FD()) })...)
	r.netlink = netlink
	stop := r.stop
	r.stop = func() { stop(); netlink.Close() }
	return r
}

// in is the node for a subtest.
func (s *sole) in(t *testing.T) *sole {
	sub := *s
	sub.t = t
	return &sub
}

// ask opens a connection to a ClusterIP and returns who answers.
func (s *sole) ask(ip string) (string, error) {
	c := nettest.Client{Host: s.ns, Protocol: "tcp", Patience: time.Second}
	a, err := c.Ask(s.t.Context(), netip.AddrPortFrom(netip.MustParseAddr(ip), 80))
	return a.Server, err
}

// expect fails unless the kernel holds what the API server's objects ask for, with no history, within a time.
func (s *sole) expect(within time.Duration) {
	s.t.Helper()
	want := meaning(s.t, fresh(s.api.all()...), counting)
	eventually(s.t, within, func() string {
		c, err := s.look.Read(s.t.Context())
		if err != nil || !c.Sound {
			return fmt.Sprintf("the tables are not sound, error %v", err)
		}
		return cmp.Diff(want, held(s.t, fixed{c}))
	})
}

// fixed is a kernel that always holds the same.
type fixed struct{ content nft.Content }

func (f fixed) Read(context.Context) (nft.Content, error) { return f.content, nil }

func (f fixed) Commit(context.Context, nft.Transaction) error { return errors.ErrUnsupported }

// eventually asks until nothing is wrong.
func eventually(t *testing.T, within time.Duration, wrong func() string) {
	t.Helper()
	for deadline := time.Now().Add(within); ; time.Sleep(5 * time.Millisecond) { // between two looks
		what := wrong()
		if what == "" {
			return
		}
		if time.Now().After(deadline) {
			t.Fatalf("after %s: %s", within, what)
		}
	}
}

// runWhole starts a proxy for node-1 and returns once all Services are served. Without a netlink nobody watches the kernel.
func runWhole(t *testing.T, client kubernetes.Interface, k *watchedKernel, netlink *nft.Netlink, adjust ...func(*watchedKernel)) *running {
	t.Helper()
	r := &running{t: t, kernel: k, log: newLogBook()}
	for _, a := range adjust {
		a(k)
	}
	c := kubeproxy.Config{
		Settings: settings(t, "--nodeport-addresses=primary", "--healthz-bind-address=", "--metrics-bind-address="),
		Client:   client, NodeName: "node-1", Families: bothFamilies(),
		Plane: nft.New(counted{k}), Kernel: noKernel{}, Log: slog.New(slog.NewTextHandler(r.log, nil)),
	}
	if netlink != nil {
		c.Kernel, c.Flows = netlink, k.flows
	}
	r.proxy = kubeproxy.New(c)
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error, 1)
	go func() { ended <- r.proxy.Run(ctx) }()
	r.stop = sync.OnceFunc(func() {
		cancel()
		select {
		case err := <-ended:
			if err != nil {
				t.Errorf("Run returned %v at the end of its context", err)
			}
		case <-time.After(10 * time.Second):
			t.Error("Run does not end")
		}
	})
	t.Cleanup(func() { r.stop() })
	r.log.await(t, "applied all Services")
	return r
}

// watchedKernel counts what is committed to another one, and fails on purpose.
type watchedKernel struct {
	kernel  nft.Kernel
	flows   *kernel.Conntrack
	before  func() error // optional: what it returns makes a commit fail with nothing done
	after   func() error // optional: what it returns makes a commit fail that was done
	changed chan struct{}

	commits, elements, replaced atomic.Int64
}

func (k *watchedKernel) Commit(ctx context.Context, tx nft.Transaction) error {
	k.commits.Add(1)
	k.elements.Add(int64(len(tx.Add) + len(tx.Delete)))
	if tx.Replace {
		k.replaced.Add(1)
	}
	if k.before != nil {
		if err := k.before(); err != nil {
			return err
		}
	}
	err := k.kernel.Commit(ctx, tx)
	if err == nil && k.after != nil {
		err = k.after()
	}
	select {
	case k.changed <- struct{}{}:
	default:
	}
	return err
}

func (k *watchedKernel) Read(ctx context.Context) (nft.Content, error) { return k.kernel.Read(ctx) }

// logBook keeps a log and lets one wait for what it says.
type logBook struct {
	mu   sync.Mutex // guards the fields below
	text strings.Builder
	more chan struct{} // closed when there is more
}

func newLogBook() *logBook { return &logBook{more: make(chan struct{})} }

func (l *logBook) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	close(l.more)
	l.more = make(chan struct{})
	return l.text.Write(b)
}

func (l *logBook) all() (text string, more <-chan struct{}) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.text.String(), l.more
}

// await returns the first line that has the words.
func (l *logBook) await(t *testing.T, words string) string {
	t.Helper()
	deadline := time.After(20 * time.Second)
	for {
		text, more := l.all()
		for line := range strings.Lines(text) {
			if strings.Contains(line, words) {
				return line
			}
		}
		select {
		case <-more:
		case <-deadline:
			t.Fatalf("%q is not logged:\n%s", words, text)
		}
	}
}

// reset forgets what was logged.
func (l *logBook) reset() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.text.Reset()
}

// addrPort is the port of all test Services at an address.
func addrPort(ip string) netip.AddrPort { return netip.AddrPortFrom(netip.MustParseAddr(ip), 80) }
