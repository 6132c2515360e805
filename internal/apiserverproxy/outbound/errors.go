package outbound

import "fmt"

// RefusedError says that an address is not dialled. It comes wrapped, in *net.OpError for one: use errors.As.
type RefusedError struct {
	Address string // what was to be dialled: IP address and port
	Why     string // a Reason, in words
}

// Error implements error. It begins with upstream's words (k8s.io/kubernetes, pkg/proxy/util.ErrAddressNotAllowed).
func (e *RefusedError) Error() string {
	return fmt.Sprintf("address not allowed: %s %s", e.Address, e.Why)
}

// sentence is a Reason in words, to be put after an address.
func (r Reason) sentence() string {
	switch r {
	case Unspecified, Loopback, LinkLocal, Multicast, Broadcast, Reserved:
		return "is a " + string(r) + " address, or leads to one"
	case Metadata:
		return "is the metadata service of a cloud, or leads to it"
	case Zoned:
		return "is an address of one link only"
	case Own:
		return "is an API server or this proxy itself"
	case NoKubelet:
		return "has the port of an API server or of this proxy, which get no credentials for kubelets"
	case Denied:
		return "is denied by the configuration"
	}
	return "is not an IP address with a port"
}
