package controlplane_test

import (
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"k8s.io/client-go/tools/clientcmd"
	"varco.dev/lab/internal/controlplane"
)

// newLayout returns a layout in a folder of the test's own, with its files written.
func newLayout(t *testing.T, planes, nodes int) controlplane.Layout {
	t.Helper()
	l := controlplane.Layout{Dir: t.TempDir(), LocalPort: 45678}
	for i := range planes {
		l.ControlPlanes = append(l.ControlPlanes, controlplane.NewHost(fmt.Sprintf("control-plane-%d", i), 2+i))
	}
	for i := range nodes {
		l.Nodes = append(l.Nodes, controlplane.NewHost(fmt.Sprintf("node-%d", i+1), 11+i))
	}
	if err := l.WriteFiles(); err != nil {
		t.Fatal(err)
	}
	return l
}

func readCert(t *testing.T, path string) *x509.Certificate {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return parseCert(t, b)
}

func parseCert(t *testing.T, b []byte) *x509.Certificate {
	t.Helper()
	block, _ := pem.Decode(b)
	if block == nil {
		t.Fatalf("no PEM in %q", b)
	}
	cert, err := x509.ParseCertificate(block.Bytes)
	if err != nil {
		t.Fatal(err)
	}
	return cert
}

// verify says whether the authority in caPath vouches for the certificate in that use; name is that of a server.
func verify(t *testing.T, cert *x509.Certificate, caPath, name string, use x509.ExtKeyUsage) error {
	t.Helper()
	roots := x509.NewCertPool()
	roots.AddCert(readCert(t, caPath))
	_, err := cert.Verify(x509.VerifyOptions{Roots: roots, DNSName: name, KeyUsages: []x509.ExtKeyUsage{use}})
	return err
}

func TestServingCertificates(t *testing.T) {
	l := newLayout(t, 2, 1)
	for _, tc := range []struct{ cert, ca, name string }{
		{"pki/apiserver.crt", "pki/ca.crt", "kubernetes"},
		{"pki/apiserver.crt", "pki/ca.crt", "kubernetes.default.svc.cluster.local"},
		{"pki/apiserver.crt", "pki/ca.crt", "10.96.0.1"},
		{"pki/apiserver.crt", "pki/ca.crt", "fd00:96::1"},
		{"pki/apiserver.crt", "pki/ca.crt", "10.240.0.2"},
		{"pki/apiserver.crt", "pki/ca.crt", "fd00:240::3"},
		{"pki/apiserver.crt", "pki/ca.crt", "127.0.0.1"},
		{"pki/apiserver.crt", "pki/ca.crt", "::1"},
		{"pki/apiserver.crt", "pki/ca.crt", "localhost"},
		{"pki/controller-manager.crt", "pki/ca.crt", "127.0.0.1"},
		{"pki/scheduler.crt", "pki/ca.crt", "127.0.0.1"},
		{"pki/etcd/server.crt", "pki/etcd/ca.crt", "10.240.0.2"},
		{"nodes/node-1/kubelet.crt", "pki/ca.crt", "node-1"},
		{"nodes/node-1/kubelet.crt", "pki/ca.crt", "10.240.0.11"},
		{"nodes/node-1/kubelet.crt", "pki/ca.crt", "fd00:240::b"},
	} {
		t.Run(tc.cert+" "+tc.name, func(t *testing.T) {
			cert := readCert(t, filepath.Join(l.Dir, tc.cert))
			if err := verify(t, cert, filepath.Join(l.Dir, tc.ca), tc.name, x509.ExtKeyUsageServerAuth); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestClientCertificates(t *testing.T) {
	l := newLayout(t, 1, 1)
	for _, tc := range []struct {
		cert, ca string
		ok       bool
	}{
		{"apiserver-kubelet-client", "ca", true},
		{"front-proxy-client", "front-proxy-ca", true},
		{"apiserver-etcd-client", "etcd/ca", true},
		// What one authority vouches for means nothing to the others.
		{"front-proxy-client", "ca", false},
		{"apiserver-etcd-client", "ca", false},
		{"apiserver-kubelet-client", "front-proxy-ca", false},
		{"apiserver-kubelet-client", "etcd/ca", false},
		// A serving certificate is no client's.
		{"scheduler", "ca", false},
	} {
		t.Run(tc.cert+" for "+tc.ca, func(t *testing.T) {
			path := filepath.Join(l.Dir, "pki", tc.cert)
			if _, err := tls.LoadX509KeyPair(path+".crt", path+".key"); err != nil {
				t.Fatal(err)
			}
			err := verify(t, readCert(t, path+".crt"), filepath.Join(l.Dir, "pki", tc.ca+".crt"), "", x509.ExtKeyUsageClientAuth)
			if (err == nil) != tc.ok {
				t.Errorf("verify: %v, want success %t", err, tc.ok)
			}
		})
	}
}

func TestKubeconfigs(t *testing.T) {
	l := newLayout(t, 2, 3)
	type login struct {
		Server, User string
		Groups       []string
	}
	for path, want := range map[string]login{
		"kubeconfig": {"https://127.0.0.1:45678", "kubernetes-admin", []string{"system:masters"}},
		"control-plane-0/controller-manager.kubeconfig": {"https://10.240.0.2:6443", "system:kube-controller-manager", nil},
		"control-plane-1/scheduler.kubeconfig":          {"https://10.240.0.3:6443", "system:kube-scheduler", nil},
		"nodes/node-1/kubeconfig":                       {"https://10.240.0.2:6443", "system:node:node-1", []string{"system:nodes"}},
		"nodes/node-2/kubeconfig":                       {"https://10.240.0.3:6443", "system:node:node-2", []string{"system:nodes"}},
		"nodes/node-3/kubeconfig":                       {"https://10.240.0.2:6443", "system:node:node-3", []string{"system:nodes"}},
	} {
		t.Run(path, func(t *testing.T) {
			conf, err := clientcmd.BuildConfigFromFlags("", filepath.Join(l.Dir, path))
			if err != nil {
				t.Fatal(err)
			}
			cert := parseCert(t, conf.CertData)
			got := login{conf.Host, cert.Subject.CommonName, cert.Subject.Organization}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("login (-want +got):\n%s", diff)
			}
			if err := verify(t, cert, l.ClientCA(), "", x509.ExtKeyUsageClientAuth); err != nil {
				t.Error(err)
			}
		})
	}
}

func TestKeysAreForRootOnly(t *testing.T) {
	l := newLayout(t, 1, 1)
	err := filepath.WalkDir(l.Dir, func(path string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		info, err := d.Info()
		secret := strings.HasSuffix(path, ".key") || strings.HasSuffix(path, "kubeconfig")
		if err == nil && secret && info.Mode().Perm() != 0o600 {
			t.Errorf("%s has mode %s", path, info.Mode())
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}

func TestWriteFilesRefuses(t *testing.T) {
	for name, l := range map[string]controlplane.Layout{
		"a relative folder": {Dir: "lab", ControlPlanes: []controlplane.Host{controlplane.NewHost("control-plane-0", 2)}},
		"no control plane":  {Dir: t.TempDir()},
	} {
		if err := l.WriteFiles(); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}
