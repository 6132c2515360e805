package server

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"os"
	"strings"
	"sync/atomic"

	"k8s.io/apiserver/pkg/server/options"
	"k8s.io/client-go/util/cert"
	cliflag "k8s.io/component-base/cli/flag"
)

// pairs are the certificates that the server shows.
type pairs struct {
	options *options.SecureServingOptions
	now     atomic.Pointer[[]pair] // the first is the default
}

// pair is a certificate, and the names that it is shown for.
type pair struct {
	certificate tls.Certificate
	names       []string // in lower case; "*.x" is any one label before x. nil: those of the certificate
}

// load reads the files, or makes a certificate where there are none.
func (p *pairs) load() error {
	first, err := p.serving()
	if err != nil {
		return err
	}
	all := []pair{{certificate: first}}
	for _, named := range p.options.SNICertKeys {
		next, err := sni(named)
		if err != nil {
			return fmt.Errorf("--tls-sni-cert-key: %w", err)
		}
		all = append(all, next)
	}
	p.now.Store(&all)
	return nil
}

func (p *pairs) serving() (tls.Certificate, error) {
	files := p.options.ServerCert.CertKey
	if files.CertFile != "" {
		c, err := tls.LoadX509KeyPair(files.CertFile, files.KeyFile)
		if err != nil {
			return c, fmt.Errorf("--tls-cert-file and --tls-private-key-file: %w", err)
		}
		return c, nil
	}
	if old := p.now.Load(); old != nil {
		return (*old)[0].certificate, nil
	}
	return p.selfSigned()
}

// selfSigned makes a certificate as upstream does: in --cert-dir, where the next start finds it, or else in memory.
func (p *pairs) selfSigned() (tls.Certificate, error) {
	o := *p.options
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

func sni(named cliflag.NamedCertKey) (pair, error) {
	c, err := tls.LoadX509KeyPair(named.CertFile, named.KeyFile)
	if err != nil {
		return pair{}, err
	}
	next := pair{certificate: c}
	for _, name := range named.Names {
		next.names = append(next.names, strings.ToLower(strings.TrimSuffix(name, ".")))
	}
	if next.names == nil {
		leaf := c.Leaf
		if leaf == nil {
			if leaf, err = x509.ParseCertificate(c.Certificate[0]); err != nil {
				return pair{}, err
			}
		}
		next.names = leaf.DNSNames
	}
	return next, nil
}

// get is a tls.Config's GetCertificate. Exact names go before patterns.
func (p *pairs) get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
	all := *p.now.Load()
	name := strings.ToLower(strings.TrimSuffix(hello.ServerName, "."))
	if name != "" && len(all) > 1 {
		_, parent, _ := strings.Cut(name, ".")
		for _, wanted := range []string{name, "*." + parent} {
			for i := range all[1:] {
				if all[1+i].has(wanted) {
					return &all[1+i].certificate, nil
				}
			}
		}
	}
	return &all[0].certificate, nil
}

func (p *pair) has(name string) bool {
	for _, n := range p.names {
		if n == name {
			return true
		}
	}
	return false
}

// files returns those that load reads.
func (p *pairs) files() []string {
	names := []string{p.options.ServerCert.CertKey.CertFile, p.options.ServerCert.CertKey.KeyFile}
	for _, named := range p.options.SNICertKeys {
		names = append(names, named.CertFile, named.KeyFile)
	}
	return names
}

// digest returns the identity of what files hold. Those that cannot be read count by the reason.
func digest(names []string) string {
	sum := sha256.New()
	for _, name := range names {
		if name != "" {
			content, err := os.ReadFile(name)
			fmt.Fprintf(sum, "%q %v %d\n", name, err, len(content))
			sum.Write(content)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}
