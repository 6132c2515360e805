package server

import (
	"crypto/tls"
	"fmt"
	"net"

	genericserver "k8s.io/apiserver/pkg/server"
	"k8s.io/apiserver/pkg/server/options"
	cliflag "k8s.io/component-base/cli/flag"

	"varco.dev/internal/httpproxy/vouch"
)

// listen opens the port.
func (s *server) listen() (net.Listener, error) {
	if l := s.options.Serving.Listener; l != nil {
		return l, nil
	}
	o := s.options.Serving
	only := options.SecureServingOptions{ // with the flags that are about the port, and no certificates
		BindAddress: o.BindAddress, BindPort: o.BindPort, BindNetwork: o.BindNetwork,
		PermitPortSharing: o.PermitPortSharing, PermitAddressSharing: o.PermitAddressSharing,
	}
	var opened *genericserver.SecureServingInfo
	if err := only.ApplyTo(&opened); err != nil {
		return nil, fmt.Errorf("--bind-address and --secure-port: %w", err)
	}
	return opened.Listener, nil
}

// tls returns the configuration of the listener.
func (s *server) tls() (*tls.Config, error) {
	o := s.options.Serving
	c := &tls.Config{MinVersion: tls.VersionTLS12}
	if o.DisableHTTP2Serving {
		c.NextProtos = []string{"http/1.1"}
	}
	var err error
	if o.MinTLSVersion != "" {
		if c.MinVersion, err = cliflag.TLSVersion(o.MinTLSVersion); err != nil {
			return nil, fmt.Errorf("--tls-min-version: %w", err)
		}
	}
	if len(o.CipherSuites) > 0 {
		if c.CipherSuites, err = cliflag.TLSCipherSuites(o.CipherSuites); err != nil {
			return nil, fmt.Errorf("--tls-cipher-suites: %w", err)
		}
	}
	if len(o.CurvePreferences) > 0 {
		if c.CurvePreferences, err = cliflag.TLSCurvePreferences(o.CurvePreferences); err != nil {
			return nil, fmt.Errorf("--tls-curve-preferences: %w", err)
		}
	}
	return vouch.TLS(c, s.pairs, s.trust), nil
}
