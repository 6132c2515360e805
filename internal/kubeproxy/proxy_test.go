package kubeproxy_test

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/spf13/pflag"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/fake"
	clienttesting "k8s.io/client-go/testing"

	"varco.dev/internal/kubeproxy"
	"varco.dev/internal/kubeproxy/config"
	"varco.dev/internal/kubeproxy/nft"
	"varco.dev/internal/kubeproxy/nft/nfttest"
	"varco.dev/internal/service"
)

// noKernel is a kubeproxy.Kernel that nobody else changes, and that counts nothing.
type noKernel struct{ lacks error }

func (k noKernel) Check(context.Context) error { return k.lacks }

func (noKernel) Watch(ctx context.Context, _ func(string)) error {
	<-ctx.Done()
	return nil
}

func (noKernel) Counters(context.Context) (map[nft.Place]nft.Count, error) { return nil, nil }

// settings are those of a command line.
func settings(t *testing.T, flags ...string) config.Config {
	t.Helper()
	options, set := config.NewOptions(), pflag.NewFlagSet("kube-proxy", pflag.ContinueOnError)
	options.AddFlags(set)
	if err := set.Parse(append(flags, "--status-socket=")); err != nil {
		t.Fatal(err)
	}
	cfg, err := options.Load()
	if err != nil {
		t.Fatal(err)
	}
	return cfg
}

// proxyConfig is for a proxy for node-1.
func proxyConfig(t *testing.T, client kubernetes.Interface, kernel *nfttest.Kernel, flags ...string) kubeproxy.Config {
	t.Helper()
	return kubeproxy.Config{
		Settings: settings(t, flags...), Client: client, NodeName: "node-1",
		Families: []service.Family{service.IPv4, service.IPv6}, Plane: nft.New(kernel), Kernel: noKernel{}, Log: slog.New(slog.DiscardHandler),
	}
}

// runProxy runs a proxy for node-1 and returns its health and metrics addresses, and what ends it.
func runProxy(t *testing.T, client kubernetes.Interface, kernel *nfttest.Kernel, flags ...string) (health, metrics string, stop func() error) {
	t.Helper()
	health, metrics = freePort(t), freePort(t)
	p := kubeproxy.New(proxyConfig(t, client, kernel, append(flags, "--healthz-bind-address="+health, "--metrics-bind-address="+metrics)...))
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	stop = func() error {
		cancel()
		select {
		case err := <-ended:
			return err
		case <-time.After(5 * time.Second):
			return errors.New("does not end")
		}
	}
	return health, metrics, stop
}

func freePort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// await asks until the answer has the code, and returns its body.
func await(t *testing.T, url string, code int) string {
	t.Helper()
	got := ""
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(5 * time.Millisecond) { // between two questions
		resp, err := http.Get(url)
		if err != nil {
			got = err.Error()
			continue
		}
		b, _ := io.ReadAll(resp.Body)
		resp.Body.Close()
		if resp.StatusCode == code {
			return string(b)
		}
		got = fmt.Sprintf("%d %s", resp.StatusCode, b)
	}
	t.Fatalf("%s: got %s, want code %d", url, got, code)
	return ""
}

// TestProxyAnswersForItself looks from outside at a proxy whose API server does not answer at first.
func TestProxyAnswersForItself(t *testing.T) {
	client := fake.NewClientset(&corev1.Service{
		ObjectMeta: metav1.ObjectMeta{Namespace: "x", Name: "a"},
		Spec:       corev1.ServiceSpec{ClusterIP: "10.96.0.1", Ports: []corev1.ServicePort{{Port: 80}}},
	}, &corev1.Node{ObjectMeta: metav1.ObjectMeta{Name: "node-1"}})
	answer := make(chan struct{})
	client.PrependReactor("list", "*", func(clienttesting.Action) (bool, runtime.Object, error) {
		select {
		case <-answer:
			return false, nil, nil
		default:
			return true, nil, errors.New("no API server")
		}
	})
	kernel := &nfttest.Kernel{}
	health, metrics, stop := runProxy(t, client, kernel)
	await(t, "http://"+health+"/healthz", 503) // there may be no such node
	await(t, "http://"+health+"/livez", 200)
	if body := await(t, "http://"+health+"/readyz", 503); !strings.Contains(body, "not all Services are applied yet") {
		t.Errorf("not ready: %q", body)
	}
	if kernel.Commits() != 0 {
		t.Error("the kernel was changed before the API server had answered")
	}
	close(answer)
	await(t, "http://"+health+"/readyz", 200)
	await(t, "http://"+health+"/healthz", 200)
	if mode := await(t, "http://"+metrics+"/proxyMode", 200); mode != "nftables" {
		t.Errorf("mode is %q", mode)
	}
	if c := await(t, "http://"+metrics+"/configz", 200); !strings.Contains(c, `{"kubeproxy.config.k8s.io":{"kind":"KubeProxyConfiguration"`) {
		t.Errorf("configuration is %s", c)
	}
	if dump := kernel.Dump(); !strings.Contains(dump, "ip no-endpoints 10.96.0.1 . tcp . 80") {
		t.Errorf("the kernel has\n%s", dump)
	}
	text := await(t, "http://"+metrics+"/metrics", 200)
	for _, want := range []string{
		`kubeproxy_sync_full_proxy_rules_duration_seconds_count{ip_family="IPv4"} 1`,
		`kubeproxy_sync_proxy_rules_nftables_sync_failures_total{ip_family="IPv6"} 0`,
		`kubeproxy_sync_proxy_rules_last_timestamp_seconds{ip_family="IPv4"}`,
	} {
		if !strings.Contains(text, want) {
			t.Errorf("metrics lack %s", want)
		}
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
	if kernel.Dump() == "" {
		t.Error("the rules are gone after the end")
	}
}

// TestProxyKnowsLocalAddressesAtFirstCommit: a NodePort that was served before a restart must not be cut off by it.
func TestProxyKnowsLocalAddressesAtFirstCommit(t *testing.T) {
	first := make(chan bool, 1)
	kernel := &nfttest.Kernel{Fail: func(tx nft.Transaction) error {
		has := false
		for _, e := range tx.Add {
			has = has || e.Set == nft.NodeAddrs
		}
		select {
		case first <- has:
		default:
		}
		return nil
	}}
	_, _, stop := runProxy(t, fake.NewClientset(), kernel, "--nodeport-addresses=0.0.0.0/1,128.0.0.0/1")
	if !<-first {
		t.Error("the first commit has no address that serves NodePorts")
	}
	if err := stop(); err != nil {
		t.Error(err)
	}
}

// TestProxyWarnsWithoutNode: a wrong --hostname-override must not pass unnoticed.
func TestProxyWarnsWithoutNode(t *testing.T) {
	logged := make(chan string, 64)
	c := proxyConfig(t, fake.NewClientset(), &nfttest.Kernel{}, "--nodeport-addresses=all", "--healthz-bind-address=", "--metrics-bind-address=")
	c.NodeName, c.Log = "nosuch", slog.New(slog.NewTextHandler(lines(logged), nil))
	p := kubeproxy.New(c)
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- p.Run(ctx) }()
	for line := range logged {
		if strings.Contains(line, "level=WARN") && strings.Contains(line, "no Node object of this name") {
			break
		}
	}
	if s, err := p.Status(ctx); err != nil || !slices.ContainsFunc(s.Problems, func(p string) bool { return strings.Contains(p, "no Node object") }) {
		t.Errorf("status has the problems %q, %v", s.Problems, err)
	}
	cancel()
	if err := <-ended; err != nil {
		t.Error(err)
	}
}

// lines hands each line of a log on.
type lines chan<- string

func (l lines) Write(b []byte) (int, error) {
	l <- string(b)
	return len(b), nil
}

// TestProxyEndsWithoutNFTables is what a user with an old kernel sees: an end at once, before anything is asked of the API.
func TestProxyEndsWithoutNFTables(t *testing.T) {
	client := fake.NewClientset()
	c := proxyConfig(t, client, &nfttest.Kernel{})
	c.Kernel = noKernel{lacks: errors.ErrUnsupported}
	p := kubeproxy.New(c)
	if err := p.Run(t.Context()); !errors.Is(err, errors.ErrUnsupported) || !strings.Contains(err.Error(), "nftables") {
		t.Errorf("got %v", err)
	}
	if len(client.Actions()) > 0 {
		t.Errorf("asked the API: %v", client.Actions())
	}
}
