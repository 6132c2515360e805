package vouch

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"fmt"
	"strings"
	"sync/atomic"

	"varco.dev/internal/filewatch"
)

// PairFiles are a certificate and its key, in PEM.
type PairFiles struct {
	CertFile, KeyFile string
	// Names are those that the certificate is shown for; "*.x" is any one label before x. None: those in the certificate.
	Names []string
}

// PairsConfig is what NewPairs wants to know.
type PairsConfig struct {
	Serving PairFiles   // the default, whatever its Names
	Named   []PairFiles // further ones
	// Make makes the default where Serving has no files. It is called once. Required then.
	Make  func() (tls.Certificate, error)
	Words Words
}

// Pairs are the certificates that a server shows.
type Pairs struct {
	config PairsConfig
	now    atomic.Pointer[[]pair] // the first is the default
}

// NewPairs returns Pairs that have nothing to show before Load is called.
func NewPairs(c PairsConfig) *Pairs { return &Pairs{config: c} }

// pair is a certificate, and the names that it is shown for.
type pair struct {
	certificate tls.Certificate
	names       []string // in lower case; "*.x" is any one label before x. nil: those of the certificate
}

// Load reads the files, or makes a certificate where there are none.
func (p *Pairs) Load() error {
	first, err := p.serving()
	if err != nil {
		return err
	}
	all := []pair{{certificate: first}}
	for _, named := range p.config.Named {
		next, err := sni(named)
		if err != nil {
			return fmt.Errorf("%s: %w", p.config.Words.ServingNamed, err)
		}
		all = append(all, next)
	}
	p.now.Store(&all)
	return nil
}

func (p *Pairs) serving() (tls.Certificate, error) {
	files := p.config.Serving
	if files.CertFile != "" {
		c, err := filewatch.ReadPair(files.CertFile, files.KeyFile)
		if err != nil {
			return c, fmt.Errorf("%s: %w", p.config.Words.Serving, err)
		}
		return c, nil
	}
	if old := p.now.Load(); old != nil {
		return (*old)[0].certificate, nil
	}
	return p.config.Make()
}

func sni(named PairFiles) (pair, error) {
	c, err := filewatch.ReadPair(named.CertFile, named.KeyFile)
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

// Get is a tls.Config's GetCertificate. Exact names go before patterns.
func (p *Pairs) Get(hello *tls.ClientHelloInfo) (*tls.Certificate, error) {
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

// Files returns the names of those that Load reads; some may be empty.
func (p *Pairs) Files() []string {
	names := []string{p.config.Serving.CertFile, p.config.Serving.KeyFile}
	for _, named := range p.config.Named {
		names = append(names, named.CertFile, named.KeyFile)
	}
	return names
}

// Digest returns the identity of what files hold. Those that cannot be read count by the reason.
func Digest(names []string) string {
	sum := sha256.New()
	for _, name := range names {
		if name != "" {
			content, err := filewatch.Read(name, filewatch.Most)
			fmt.Fprintf(sum, "%q %v %d\n", name, err, len(content))
			sum.Write(content)
		}
	}
	return hex.EncodeToString(sum.Sum(nil))
}
