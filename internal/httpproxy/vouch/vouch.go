package vouch

import (
	"crypto/x509"
	"fmt"
	"slices"
	"time"

	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
)

// vouching is what was found out about the front-proxy certificate.
type vouching struct {
	by    *trusted
	until time.Time
	err   error // why it must not be used
}

// mayVouch returns why no identity may be carried over with the front-proxy certificate, or nil.
func (p *Pass) mayVouch(l *passLanes) error {
	old, now, by := l.vouching.Load(), time.Now(), p.config.Trust.now.Load()
	if old != nil && old.by == by && now.Before(old.until) {
		return old.err
	}
	v := &vouching{by, now.Add(verdictTime), by.vouches(l.chain, p.config.Words.FrontProxy)}
	l.vouching.Store(v)
	if v.err != nil && (old == nil || old.err == nil) {
		p.config.Log.Error("client certificates are not carried over", "error", v.err)
	}
	return v.err
}

// vouches returns why an API server that trusts these authorities would not take a certificate for that of a front proxy but
// for a client's: it would do everything that any client asks for with the rights of that one. A certificate that it does not know at
// all does no harm: X-Remote-… is not heeded then.
func (t *trusted) vouches(chain []*x509.Certificate, flag string) error {
	if len(chain) == 0 {
		return nil
	}
	name := chain[0].Subject.CommonName
	signs := func(roots *x509.CertPool) bool {
		o := x509request.DefaultVerifyOptions()
		o.Roots, o.Intermediates = roots, x509.NewCertPool()
		for _, c := range chain[1:] {
			o.Intermediates.AddCert(c)
		}
		_, err := chain[0].Verify(o)
		return roots != nil && err == nil
	}
	switch {
	case signs(t.proxies) && (len(t.allowed) == 0 || slices.Contains(t.allowed, name)):
		return nil
	case signs(t.clients):
		return fmt.Errorf("the certificate of %s is one of the client %q to the API server, and of no front proxy: everybody would have that client's rights", flag, name)
	}
	return nil
}

// parsed returns the certificates of a chain in DER.
func parsed(chain [][]byte) (out []*x509.Certificate, err error) {
	for _, der := range chain {
		c, err := x509.ParseCertificate(der)
		if err != nil {
			return nil, fmt.Errorf("read the front-proxy certificate: %w", err)
		}
		out = append(out, c)
	}
	return out, nil
}
