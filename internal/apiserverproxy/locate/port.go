package locate

import (
	"fmt"
	"strconv"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiwatch/directory"
)

// number reads the number of a port.
func number(port string) (uint16, bool) {
	n, err := strconv.ParseUint(port, 10, 16)
	return uint16(n), err == nil && n > 0
}

// wellKnown returns the number of a name that upstream's dialer finds by itself. Of the names it knows, these are the ones
// that speak HTTP.
func wellKnown(port string) (uint16, bool) {
	switch port {
	case "http":
		return 80, true
	case "https":
		return 443, true
	}
	return 0, false
}

// noPort is the error for a port that a pod or node cannot have. Upstream notices when it dials, which is a 503 as well.
func noPort(a address.Address) error {
	return apierrors.NewServiceUnavailable(fmt.Sprintf("no port %q found for %s %q", a.Port, a.Kind, a.Name))
}

// notAllowed is upstream's error for an address that is not global unicast.
func notAllowed() error { return apierrors.NewBadRequest("address not allowed") }

// finish sets what follows from all the rest. It fails if there can be no connection.
func (d *Destination) finish(uid string, tls directory.BackendTLS) (*Destination, error) {
	d.Key = d.Kind.String() + "/" + d.Namespace + "/" + d.Name + "/" + uid + ":" + d.Port + "/" + d.Scheme
	if d.Scheme == HTTPS && !d.Kubelet {
		d.TLS = tls
	}
	if err := d.TLS.Err(); err != nil {
		return nil, apierrors.NewServiceUnavailable(fmt.Sprintf("%s %q: %v", d.Kind, d.Name, err))
	}
	return d, nil
}
