package lab

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"

	"varco.dev/bench/internal/contender"
	"varco.dev/internal/nettest"
)

// APIServer is where the API server is reached in the network namespace of the control plane.
var APIServer = netip.MustParseAddrPort("10.240.0.2:6443")

// Component returns the process of kube-apiserver or etcd, which has an argument that no other process has.
func (l *Lab) Component(name string) (contender.PID, error) {
	own, err := l.own(name)
	if err != nil {
		return 0, err
	}
	return contender.Find(own)
}

// own is an argument of kube-apiserver or etcd that none of another lab has.
func (l *Lab) own(name string) (string, error) {
	dir, err := l.realDir()
	if err != nil {
		return "", err
	}
	return map[string]string{
		"kube-apiserver": "--etcd-cafile=" + filepath.Join(dir, "pki/etcd/ca.crt"),
		"etcd":           "--data-dir=" + filepath.Join(dir, "etcd"),
	}[name], nil
}

// Machine opens the network namespace of the control plane. The caller closes it.
func (l *Lab) Machine() (*nettest.Namespace, error) {
	pid, err := l.Component("kube-apiserver")
	if err != nil {
		return nil, err
	}
	return nettest.OpenNamespace("control-plane", fmt.Sprintf("/proc/%d/ns/net", pid))
}

// PKI is the path of a certificate or key of the control plane, such as ca.crt.
func (l *Lab) PKI(name string) (string, error) {
	dir, err := l.realDir()
	return filepath.Join(dir, "pki", name), err
}

// realDir is the folder as the lab's processes name it.
func (l *Lab) realDir() (string, error) {
	abs, err := filepath.Abs(l.Dir)
	if err != nil {
		return "", err
	}
	return filepath.EvalSymlinks(abs)
}

// Trust is TLS with the lab's certificate authority; a client that is to be the administrator shows its certificate.
func (l *Lab) Trust(server netip.Addr, administrator bool) (*tls.Config, error) {
	out := &tls.Config{ServerName: server.String(), RootCAs: x509.NewCertPool()}
	for _, c := range l.config.Clusters {
		if !out.RootCAs.AppendCertsFromPEM(c.CertificateAuthorityData) {
			return nil, errors.New("read kubeconfig of the lab: no certificate authority")
		}
	}
	if !administrator {
		return out, nil
	}
	for _, u := range l.config.AuthInfos {
		pair, err := tls.X509KeyPair(u.ClientCertificateData, u.ClientKeyData)
		if err != nil {
			return nil, fmt.Errorf("read kubeconfig of the lab: %w", err)
		}
		out.Certificates = append(out.Certificates, pair)
	}
	return out, nil
}
