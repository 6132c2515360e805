package locate

import (
	"fmt"
	"net"
	"net/http"
	"net/netip"
	"slices"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiwatch/directory"
)

// nodeDestination is ResourceLocation of node/strategy.go. An address that is a name is not resolved here: what it
// resolves to is checked where it is dialled, so that it cannot be another one by then (CVE-2020-8562).
func (l *Locator) nodeDestination(n *directory.Node, a address.Address) (*Destination, error) {
	host, err := l.preferred(n)
	if err != nil {
		return nil, err
	}
	d := &Destination{Kind: address.Node, Name: n.Name}
	port, ok := l.nodePort(n, a, d)
	if !ok {
		return nil, noPort(a)
	}
	d.Port = strconv.Itoa(int(port))
	switch addr, err := netip.ParseAddr(host); {
	case err != nil && hostname(host):
		d.Host = net.JoinHostPort(host, d.Port)
	case err != nil, !addr.Unmap().IsGlobalUnicast():
		return nil, notAllowed()
	default:
		d.Endpoints = []Endpoint{{Addr: netip.AddrPortFrom(addr.Unmap(), port), Node: n.Name}}
	}
	return d.finish("", directory.BackendTLS{})
}

// nodePort returns the port that an address means, and sets how to speak to it. The kubelet's port is spoken to as to a
// kubelet whatever the scheme in the URL, as upstream does.
func (l *Locator) nodePort(n *directory.Node, a address.Address, d *Destination) (uint16, bool) {
	kubelet := n.KubeletPort
	if kubelet == 0 {
		kubelet = l.config.KubeletPort
	}
	port, ok := kubelet, true
	if a.Port != "" {
		if port, ok = number(a.Port); !ok {
			port, ok = wellKnown(a.Port)
		}
	}
	d.Kubelet, d.Scheme = port == kubelet, scheme(a.Scheme, "", "")
	if d.Kubelet {
		d.Scheme = HTTPS
	}
	return port, ok
}

// preferred returns the first address of the best type (GetPreferredNodeAddress in pkg/util/node of Kubernetes). That
// there is none has the code and the words of upstream's error, which is not one of the API and so becomes a 500.
func (l *Locator) preferred(n *directory.Node) (string, error) {
	for _, kind := range l.config.NodeAddressTypes {
		for _, a := range n.Addrs {
			if a.Type == kind {
				return a.Address, nil
			}
		}
	}
	return "", &apierrors.StatusError{ErrStatus: metav1.Status{
		Status: metav1.StatusFailure, Code: http.StatusInternalServerError,
		Message: fmt.Sprintf("no preferred addresses found; known addresses: %v", n.Addrs),
	}}
}

// hostname tells whether an address that is no IP address can be a name. A node writes its own addresses, and this becomes
// a part of a URL.
func hostname(s string) bool {
	for _, c := range []byte(s) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && c != '-' && c != '.' && c != '_' {
			return false
		}
	}
	return s != ""
}

// sameNode tells whether two states of a node lead to the same destination.
func sameNode(a, b *directory.Node) bool {
	return a == b || a != nil && b != nil &&
		a.Name == b.Name && a.KubeletPort == b.KubeletPort && slices.Equal(a.Addrs, b.Addrs)
}
