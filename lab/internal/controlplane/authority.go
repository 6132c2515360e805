package controlplane

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
	"net/netip"
	"os"
	"time"
)

// validity of every certificate: a lab is thrown away long before.
const validity = 365 * 24 * time.Hour

// Authority issues certificates.
type Authority struct {
	Pair
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// Pair is a certificate and its private key, both as PEM.
type Pair struct{ Cert, Key []byte }

// Subject says for whom a certificate is. It serves for TLS servers if it has Names or Addrs, for clients if it has a
// CommonName.
type Subject struct {
	// CommonName is the user name, Organization are the user's groups.
	CommonName   string
	Organization []string
	// Names are DNS names and Addrs are addresses of the server.
	Names []string
	Addrs []netip.Addr
	// Until is the certificate's end; zero means long after the lab's.
	Until time.Time
}

// NewAuthority makes an authority with a new key and a certificate signed by itself.
func NewAuthority(name string) (*Authority, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	template, err := newTemplate(Subject{CommonName: name})
	if err != nil {
		return nil, err
	}
	template.IsCA, template.BasicConstraintsValid = true, true
	template.KeyUsage |= x509.KeyUsageCertSign
	template.ExtKeyUsage = nil
	a := &Authority{cert: template, key: key}
	if a.Pair, err = a.sign(template, key); err != nil {
		return nil, fmt.Errorf("make authority %s: %w", name, err)
	}
	block, _ := pem.Decode(a.Cert)
	if a.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
		return nil, fmt.Errorf("parse certificate of authority %s: %w", name, err)
	}
	return a, nil
}

// readAuthority reads one that write stored as path.crt and path.key.
func readAuthority(path string) (*Authority, error) {
	pair, err := tls.LoadX509KeyPair(path+".crt", path+".key")
	if err != nil {
		return nil, fmt.Errorf("read authority %s: %w", path, err)
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("read authority %s: the key is a %T", path, pair.PrivateKey)
	}
	return &Authority{cert: pair.Leaf, key: key}, nil
}

// Issue makes a key and a certificate for the subject.
func (a *Authority) Issue(s Subject) (Pair, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return Pair{}, err
	}
	template, err := newTemplate(s)
	if err != nil {
		return Pair{}, err
	}
	pair, err := a.sign(template, key)
	if err != nil {
		return Pair{}, fmt.Errorf("issue certificate for %q: %w", s.CommonName, err)
	}
	return pair, nil
}

func (a *Authority) sign(template *x509.Certificate, key *ecdsa.PrivateKey) (Pair, error) {
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, &key.PublicKey, a.key)
	if err != nil {
		return Pair{}, err
	}
	keyPEM, err := encodeKey(key)
	if err != nil {
		return Pair{}, err
	}
	return Pair{Cert: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), Key: keyPEM}, nil
}

func newTemplate(s Subject) (*x509.Certificate, error) {
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 120))
	if err != nil {
		return nil, err
	}
	now := time.Now()
	c := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: s.CommonName, Organization: s.Organization},
		DNSNames:     s.Names,
		NotBefore:    now.Add(-time.Hour), // clocks in a lab may be set back
		NotAfter:     now.Add(validity),
		KeyUsage:     x509.KeyUsageDigitalSignature,
	}
	if !s.Until.IsZero() {
		c.NotBefore, c.NotAfter = s.Until.Add(-validity), s.Until
	}
	for _, addr := range s.Addrs {
		c.IPAddresses = append(c.IPAddresses, net.IP(addr.AsSlice()))
	}
	if len(s.Names)+len(s.Addrs) > 0 {
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageServerAuth)
	}
	if s.CommonName != "" {
		c.ExtKeyUsage = append(c.ExtKeyUsage, x509.ExtKeyUsageClientAuth)
	}
	return c, nil
}

// newSigningKey makes the key pair that signs and checks service-account tokens, as PEM.
func newSigningKey() (private, public []byte, err error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	if private, err = encodeKey(key); err != nil {
		return nil, nil, err
	}
	der, err := x509.MarshalPKIXPublicKey(&key.PublicKey)
	if err != nil {
		return nil, nil, err
	}
	return private, pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der}), nil
}

func encodeKey(key *ecdsa.PrivateKey) ([]byte, error) {
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der}), nil
}

// write stores the pair as path.crt and path.key.
func (p Pair) write(path string) error {
	if err := os.WriteFile(path+".crt", p.Cert, 0o644); err != nil {
		return err
	}
	return os.WriteFile(path+".key", p.Key, 0o600)
}
