package outbound

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"strings"
	"sync/atomic"
)

// files are where the credentials for a kind of targets are; "" is none.
type files struct {
	cert, key, ca, token string
}

// credentials are what the files held.
type credentials struct {
	cert  *tls.Certificate // nil: none
	roots *x509.CertPool   // nil: targets are not verified
	token string
}

// load reads the files.
func (f files) load() (*credentials, error) {
	c := &credentials{}
	if f.cert != "" {
		cert, err := tls.LoadX509KeyPair(f.cert, f.key)
		if err != nil {
			return nil, fmt.Errorf("load the client certificate: %w", err)
		}
		c.cert = &cert
	}
	if f.ca != "" {
		pem, err := os.ReadFile(f.ca)
		if err != nil {
			return nil, fmt.Errorf("load the certificate authority: %w", err)
		}
		if c.roots, err = rootsOf(pem); err != nil {
			return nil, fmt.Errorf("load the certificate authority of %s: %w", f.ca, err)
		}
	}
	if f.token != "" {
		text, err := os.ReadFile(f.token)
		if err != nil {
			return nil, fmt.Errorf("load the token: %w", err)
		}
		if c.token = strings.TrimSpace(string(text)); c.token == "" {
			return nil, fmt.Errorf("load the token: %s is empty", f.token)
		}
	}
	return c, nil
}

// rootsOf returns the certificates of a PEM bundle.
func rootsOf(pem []byte) (*x509.CertPool, error) {
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("it holds no certificate in PEM")
	}
	return roots, nil
}

// print is equal for equal contents of the files. A file that cannot be read counts as an empty one.
func (f files) print() (sum [sha256.Size]byte) {
	h := sha256.New()
	for _, name := range []string{f.cert, f.key, f.ca, f.token} {
		if name == "" {
			continue
		}
		b, _ := os.ReadFile(name)
		fmt.Fprintf(h, "%d\n", len(b))
		h.Write(b)
	}
	h.Sum(sum[:0])
	return sum
}

// keyring holds the credentials for a kind of targets, and replaces them when the files change.
type keyring struct {
	name  string // for the log
	files files
	print [sha256.Size]byte // of what was loaded last; belongs to the one who follows
	now   atomic.Pointer[credentials]
}

func newKeyring(name string, f files) (*keyring, error) {
	k := &keyring{name: name, files: f, print: f.print()}
	c, err := f.load()
	if err != nil {
		return nil, err
	}
	k.now.Store(c)
	return k, nil
}
