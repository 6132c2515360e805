package controlplane_test

import (
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
	"varco.dev/internal/apiserverlb/config"
	"varco.dev/lab/internal/controlplane"
)

// newBalanced is newLayout with a balancer.
func newBalanced(t *testing.T, planes, nodes int) controlplane.Layout {
	t.Helper()
	l := newLayout(t, planes, nodes)
	b := controlplane.NewHost(controlplane.BalancerName, controlplane.BalancerNumber)
	l.Balancer, l.ShutdownDelay = &b, 5*time.Second
	if err := l.WriteFiles(); err != nil {
		t.Fatal(err)
	}
	return l
}

// The balancer takes its configuration, and begins with all API servers.
func TestBalancerConfig(t *testing.T) {
	l := newBalanced(t, 3, 0)
	c, err := config.Read(l.BalancerConfig())
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for _, s := range c.Backends.Static {
		got = append(got, s.Address)
	}
	if diff := cmp.Diff([]string{"10.240.0.2:6443", "10.240.0.3:6443", "10.240.0.4:6443"}, got); diff != "" {
		t.Errorf("backends (-want +got):\n%s", diff)
	}
	if c.Backends.Kubernetes.Kubeconfig == "" || c.HandoverSocket == "" || c.Backends.CacheFile == "" {
		t.Errorf("configuration %+v", c)
	}
}

// All clients ask the balancer, which answers with a certificate of the API servers; it starts after these and before those.
func TestClientsOfBalancer(t *testing.T) {
	l := newBalanced(t, 2, 2)
	for _, path := range []string{
		filepath.Join(l.NodeDir("node-2"), "kubeconfig"), filepath.Join(l.Dir, "control-plane-1", "scheduler.kubeconfig"),
		filepath.Join(l.Dir, controlplane.BalancerName, "kubeconfig"),
	} {
		conf, err := clientcmd.BuildConfigFromFlags("", path)
		if err != nil {
			t.Fatal(err)
		}
		if conf.Host != "https://10.240.0.10:6443" {
			t.Errorf("%s: server %s", path, conf.Host)
		}
	}
	cert := readCert(t, filepath.Join(l.Dir, "control-plane-1", "apiserver.crt"))
	if err := cert.VerifyHostname("10.240.0.10"); err != nil {
		t.Error(err)
	}
	var titles []string
	for _, s := range l.Stages() {
		titles = append(titles, s.Title)
	}
	if i := slices.Index(titles, controlplane.BalancerName); i < 1 || titles[i-1] != "kube-apiserver" || !l.Stages()[i].Components[0].Varco {
		t.Errorf("stages %v", titles)
	}
}

// Serve changes the certificate of one API server alone.
func TestServe(t *testing.T) {
	l := newLayout(t, 2, 0)
	path := func(i int) string { return filepath.Join(l.Dir, l.ControlPlanes[i].Name, "apiserver.crt") }
	other, end := readCert(t, path(0)), time.Now().Add(-time.Hour)
	if err := l.Serve(l.ControlPlanes[1], end); err != nil {
		t.Fatal(err)
	}
	cert := readCert(t, path(1))
	if cert.NotAfter.After(end) || cert.NotAfter.Before(end.Add(-2*time.Second)) || !cert.NotBefore.Before(cert.NotAfter) {
		t.Errorf("the certificate is valid from %s to %s", cert.NotBefore, cert.NotAfter)
	}
	if err := cert.CheckSignatureFrom(readCert(t, l.ClientCA())); err != nil {
		t.Error(err)
	}
	if !readCert(t, path(0)).Equal(other) {
		t.Error("the other API server's certificate has changed")
	}
}
