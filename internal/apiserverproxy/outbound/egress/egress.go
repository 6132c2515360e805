// Package egress dials through the proxies that kube-apiserver uses to get into the cluster's network, such as
// konnectivity, from the same configuration file.
package egress

import (
	"context"
	"errors"
	"fmt"
	"net"
	"strings"

	"k8s.io/apiserver/pkg/apis/apiserver"
	"k8s.io/apiserver/pkg/server/egressselector"
)

// Read reads an EgressSelectorConfiguration (kube-apiserver's --egress-selector-config-file) and returns how its entry
// "cluster" dials, which is what kube-apiserver's proxy subresources use. The result is nil if there is no such entry or
// it says "Direct". No connection is made.
//
// The function returned takes the network "tcp" and an address whose host may be a name, which the far end resolves. Over
// gRPC it does not end with its context, but after 30 s at the latest.
func Read(file string) (func(ctx context.Context, network, address string) (net.Conn, error), error) {
	if file == "" {
		return nil, errors.New("read the egress configuration: no file is named")
	}
	config, err := egressselector.ReadEgressSelectorConfiguration(file)
	if err != nil {
		return nil, fmt.Errorf("read the egress configuration: %w", err)
	}
	if errs := egressselector.ValidateEgressSelectorConfiguration(config); len(errs) > 0 {
		return nil, fmt.Errorf("check the egress configuration %s: %w", file, errs.ToAggregate())
	}
	cluster := connection(config)
	switch {
	case cluster == nil || cluster.ProxyProtocol == apiserver.ProtocolDirect:
		return nil, nil // upstream's dialer for that is http.DefaultTransport's, which looks at no address
	case cluster.Transport.TCP != nil && cluster.Transport.TCP.TLSConfig == nil:
		return nil, fmt.Errorf("check the egress configuration %s: the entry cluster has no TLS, without which upstream has no TCP", file)
	}
	only := &apiserver.EgressSelectorConfiguration{EgressSelections: []apiserver.EgressSelection{{Name: "cluster", Connection: *cluster}}}
	selector, err := egressselector.NewEgressSelector(only)
	if err != nil {
		return nil, fmt.Errorf("set up the egress of %s: %w", file, err)
	}
	return selector.Lookup(egressselector.Cluster.AsNetworkContext())
}

// connection returns the entry for connections into the cluster; nil: there is none. Case does not count in names, as
// upstream.
func connection(config *apiserver.EgressSelectorConfiguration) *apiserver.Connection {
	for i, s := range config.EgressSelections {
		if strings.EqualFold(s.Name, egressselector.Cluster.String()) {
			return &config.EgressSelections[i].Connection
		}
	}
	return nil
}
