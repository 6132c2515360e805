package server

import (
	"crypto/tls"
	"fmt"
	"log/slog"

	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/util/cert"

	"varco.dev/internal/httpproxy/identity"
	"varco.dev/internal/httpproxy/vouch"
)

// newTrust returns what the flags say of client certificates.
func newTrust(o *options.DelegatingAuthenticationOptions, client kubernetes.Interface, log *slog.Logger) *vouch.Trust {
	h := o.RequestHeader
	c := vouch.TrustConfig{
		ClientCAFile: o.ClientCert.ClientCA, ProxyCAFile: h.ClientCAFile, AllowedNames: h.AllowedNames,
		Headers:  identity.Headers{Users: h.UsernameHeaders, UIDs: h.UIDHeaders, Groups: h.GroupHeaders, ExtraPrefixes: h.ExtraHeaderPrefixes},
		Tolerate: o.TolerateInClusterLookupFailure, Words: vouch.Flags(), Log: log,
	}
	if !o.SkipInClusterLookup {
		c.Client = client
	}
	return vouch.NewTrust(c)
}

// newPairs returns the certificates that the flags name, or one that is made.
func newPairs(o *options.SecureServingOptions) *vouch.Pairs {
	first := o.ServerCert.CertKey
	c := vouch.PairsConfig{
		Serving: vouch.PairFiles{CertFile: first.CertFile, KeyFile: first.KeyFile},
		Make:    func() (tls.Certificate, error) { return selfSigned(*o) },
		Words:   vouch.Flags(),
	}
	for _, named := range o.SNICertKeys {
		c.Named = append(c.Named, vouch.PairFiles{CertFile: named.CertFile, KeyFile: named.KeyFile, Names: named.Names})
	}
	return vouch.NewPairs(c)
}

// selfSigned makes a certificate as upstream does: in --cert-dir, where the next start finds it, or else in memory.
func selfSigned(o options.SecureServingOptions) (tls.Certificate, error) {
	host := "localhost"
	if !o.BindAddress.IsUnspecified() {
		host = o.BindAddress.String()
	}
	if o.ServerCert.CertDirectory == "" {
		certPEM, keyPEM, err := cert.GenerateSelfSignedCertKey(host, nil, []string{"localhost"})
		if err != nil {
			return tls.Certificate{}, fmt.Errorf("make a certificate: %w", err)
		}
		return tls.X509KeyPair(certPEM, keyPEM)
	}
	if err := o.MaybeDefaultWithSelfSignedCerts(host, []string{"localhost"}, nil); err != nil {
		return tls.Certificate{}, fmt.Errorf("make a certificate in --cert-dir: %w", err)
	}
	return tls.LoadX509KeyPair(o.ServerCert.CertKey.CertFile, o.ServerCert.CertKey.KeyFile)
}
