package controlplane

import (
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// loopback are the addresses that every serving certificate has.
var loopback = []netip.Addr{netip.MustParseAddr("127.0.0.1"), netip.IPv6Loopback()}

// authorities of a cluster: three, because what one of them vouches for means nothing to the others.
type authorities struct{ cluster, frontProxy, etcd *Authority }

// WriteFiles makes new keys, certificates and kubeconfigs of all components and stores them under l.Dir.
func (l Layout) WriteFiles() error {
	if err := l.check(); err != nil {
		return err
	}
	if err := l.makeDirs(); err != nil {
		return fmt.Errorf("make folders of certificates: %w", err)
	}
	a, err := l.writeAuthorities()
	if err != nil {
		return fmt.Errorf("make certificate authorities: %w", err)
	}
	if err := l.writeSigningKey(); err != nil {
		return fmt.Errorf("make key of service accounts: %w", err)
	}
	if err := l.writeCertificates(a); err != nil {
		return fmt.Errorf("make certificates: %w", err)
	}
	if err := l.writeKubeconfigs(a.cluster); err != nil {
		return fmt.Errorf("make kubeconfigs: %w", err)
	}
	if err := l.writeBalancer(); err != nil {
		return fmt.Errorf("configure varco apiserver-lb: %w", err)
	}
	return nil
}

func (l Layout) makeDirs() error {
	dirs := []string{l.pki("etcd")}
	for _, h := range l.ControlPlanes {
		dirs = append(dirs, l.hostDir(h))
	}
	for _, h := range l.Nodes {
		dirs = append(dirs, l.NodeDir(h.Name))
	}
	if l.Balancer != nil {
		dirs = append(dirs, l.hostDir(*l.Balancer))
	}
	for _, dir := range dirs {
		if err := os.MkdirAll(dir, 0o700); err != nil {
			return err
		}
	}
	return nil
}

func (l Layout) writeAuthorities() (a authorities, err error) {
	for _, one := range []struct {
		file, name string
		to         **Authority
	}{
		{"ca", "kubernetes", &a.cluster},
		{"front-proxy-ca", "front-proxy-ca", &a.frontProxy},
		{"etcd/ca", "etcd-ca", &a.etcd},
	} {
		if *one.to, err = NewAuthority(one.name); err != nil {
			return a, err
		}
		if err := (*one.to).write(l.pki(one.file)); err != nil {
			return a, err
		}
	}
	return a, nil
}

func (l Layout) writeSigningKey() error {
	private, public, err := newSigningKey()
	if err != nil {
		return err
	}
	if err := os.WriteFile(l.pki("sa.key"), private, 0o600); err != nil {
		return err
	}
	return os.WriteFile(l.pki("sa.pub"), public, 0o644)
}

// order is one certificate to be issued and where to store it, without file extension.
type order struct {
	from    *Authority
	path    string
	subject Subject
}

func (l Layout) writeCertificates(a authorities) error {
	for _, o := range slices.Concat(l.sharedOrders(a), l.servingOrders(a), l.nodeOrders(a)) {
		pair, err := o.from.Issue(o.subject)
		if err != nil {
			return err
		}
		if err := pair.write(o.path); err != nil {
			return err
		}
	}
	return nil
}

// sharedOrders are the certificates of the control plane. All its machines use the same ones.
func (l Layout) sharedOrders(a authorities) []order {
	hosts := append([]netip.Addr{}, loopback...)
	for _, h := range l.ControlPlanes {
		hosts = append(hosts, h.Addrs...)
	}
	local := Subject{Names: []string{"localhost"}, Addrs: loopback}
	return []order{
		{a.cluster, l.pki("apiserver"), l.servingSubject()},
		{a.cluster, l.pki("apiserver-kubelet-client"),
			Subject{CommonName: "kube-apiserver-kubelet-client", Organization: []string{adminGroup}}},
		{a.cluster, l.pki("controller-manager"), local},
		{a.cluster, l.pki("scheduler"), local},
		{a.frontProxy, l.pki("front-proxy-client"), Subject{CommonName: "front-proxy-client"}},
		{a.etcd, l.pki("etcd/server"), Subject{CommonName: "etcd", Names: []string{"localhost"}, Addrs: hosts}},
		{a.etcd, l.pki("apiserver-etcd-client"), Subject{CommonName: "kube-apiserver-etcd-client"}},
	}
}

// servingSubject is what API servers serve as, whichever address they are asked at.
func (l Layout) servingSubject() Subject {
	s := Subject{
		CommonName: "kube-apiserver",
		Names: []string{"kubernetes", "kubernetes.default", "kubernetes.default.svc",
			"kubernetes.default.svc.cluster.local", "localhost"},
		Addrs: append(ServiceNet.Host(1).Addrs(), loopback...),
	}
	for _, h := range l.ControlPlanes {
		s.Addrs = append(s.Addrs, h.Addrs...)
	}
	if l.Balancer != nil {
		s.Addrs = append(s.Addrs, l.Balancer.Addrs...)
	}
	return s
}

// serving is the path, without its ending, of the certificate that the API server of one machine serves.
func (l Layout) serving(h Host) string { return filepath.Join(l.hostDir(h), "apiserver") }

// servingOrders are those certificates: each API server has its own, so that one of them can be made a bad one.
func (l Layout) servingOrders(a authorities) []order {
	var orders []order
	for _, h := range l.ControlPlanes {
		orders = append(orders, order{a.cluster, l.serving(h), l.servingSubject()})
	}
	return orders
}

// Serve gives the API server of one machine another serving certificate, which ends at the given time: one in the past is
// an expired one. The server reads it when it starts.
func (l Layout) Serve(h Host, until time.Time) error {
	ca, err := readAuthority(l.pki("ca"))
	if err != nil {
		return err
	}
	subject := l.servingSubject()
	subject.Until = until
	pair, err := ca.Issue(subject)
	if err != nil {
		return err
	}
	return pair.write(l.serving(h))
}

// nodeOrders are the certificates that nodes serve port 10250 with.
func (l Layout) nodeOrders(a authorities) []order {
	var orders []order
	for _, h := range l.Nodes {
		orders = append(orders, order{a.cluster, filepath.Join(l.NodeDir(h.Name), "kubelet"),
			Subject{Names: []string{h.Name}, Addrs: append(append([]netip.Addr{}, loopback...), h.Addrs...)}})
	}
	return orders
}
