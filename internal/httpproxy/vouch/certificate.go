package vouch

import (
	"context"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	utilerrors "k8s.io/apimachinery/pkg/util/errors"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	x509request "k8s.io/apiserver/pkg/authentication/request/x509"
	"k8s.io/apiserver/pkg/authentication/user"
)

// verdictTime is how long a certificate that was verified counts as such on its connection; tokens have the same. Verifying one
// costs some 100 µs, several times of all else that is done for a small request.
const verdictTime = 10 * time.Second

// certificateAuthenticators are upstream's, for what is trusted now.
type certificateAuthenticators struct {
	proxy   authenticator.Request // succeeds for the certificate of a front proxy, whoever its client may be
	headers authenticator.Request // the client that a front proxy names
	client  authenticator.Request
}

func newCertificateAuthenticators(t *trusted) certificateAuthenticators {
	h := t.headers
	return certificateAuthenticators{
		proxy:   x509request.NewDynamicCAVerifier(verifyOptions(t.proxies), anyone{}, x509request.StaticStringSlice(t.allowed)),
		headers: headerrequest.NewDynamic(headerrequest.StaticStringSlice(h.Users), headerrequest.StaticStringSlice(h.UIDs), headerrequest.StaticStringSlice(h.Groups), headerrequest.StaticStringSlice(h.ExtraPrefixes)),
		client:  x509request.NewDynamic(verifyOptions(t.clients), x509request.CommonNameUserConversion),
	}
}

func verifyOptions(roots *x509.CertPool) x509request.VerifyOptionFunc {
	return func() (x509.VerifyOptions, bool) {
		o := x509request.DefaultVerifyOptions()
		o.Roots = roots
		return o, roots != nil // without roots those of the machine would count
	}
}

// anyone authenticates every request.
type anyone struct{}

// AuthenticateRequest implements authenticator.Request.
func (anyone) AuthenticateRequest(*http.Request) (*authenticator.Response, bool, error) {
	return &authenticator.Response{User: &user.DefaultInfo{}}, true, nil
}

// verdict is what the client certificate of a connection says. The zero value: there is none.
type verdict struct {
	by     *trusted
	leaf   *x509.Certificate
	until  time.Time
	proxy  bool                    // it is a front proxy's
	client *authenticator.Response // whose it is; nil: nobody's that is known
	fields http.Header             // client, as the API server is told
	unsaid error                   // why the API server cannot be told
	err    error                   // why there is no client
}

// connection is what is remembered of one.
type connection struct {
	verdict atomic.Pointer[verdict]
}

type connectionKey struct{}

// Remember is a http.Server's ConnContext: with it, a certificate is verified once in a while and not for each request.
func Remember(ctx context.Context, _ net.Conn) context.Context {
	return context.WithValue(ctx, connectionKey{}, &connection{})
}

// judge returns what the certificate of a request's connection says.
func (t *Trust) judge(r *http.Request) *verdict {
	if r.TLS == nil || len(r.TLS.PeerCertificates) == 0 {
		return &verdict{}
	}
	now, by := time.Now(), t.now.Load()
	c, _ := r.Context().Value(connectionKey{}).(*connection)
	if c == nil {
		return by.judge(r, now)
	}
	v := c.verdict.Load()
	if v == nil || v.by != by || v.leaf != r.TLS.PeerCertificates[0] || !now.Before(v.until) {
		v = by.judge(r, now)
		c.verdict.Store(v)
	}
	return v
}

func (t *trusted) judge(r *http.Request, now time.Time) *verdict {
	v := &verdict{by: t, leaf: r.TLS.PeerCertificates[0], until: now.Add(verdictTime)}
	var errs []error
	if t.proxies != nil {
		_, ok, err := t.authReqs.proxy.AuthenticateRequest(r)
		v.proxy = ok
		errs = append(errs, err)
	}
	if t.clients != nil {
		client, ok, err := t.authReqs.client.AuthenticateRequest(r)
		if ok {
			v.client = client
			v.fields, v.unsaid = t.fields(client.User)
		}
		errs = append(errs, err)
	}
	if v.client == nil {
		v.err = utilerrors.NewAggregate(errs) // that of a front proxy counts as well, as upstream, where it names nobody
	}
	return v
}

// fields returns the header of an identity.
func (t *trusted) fields(u user.Info) (http.Header, error) {
	h := http.Header{}
	if err := t.headers.Set(h, u); err != nil {
		return nil, err
	}
	return h, nil
}

// named returns the client that a front proxy names, if the connection is a front proxy's, or whose certificate it has. As
// upstream, what a certificate says counts more than any token. nil without an error: there is no certificate, or one that
// says nothing. An error: it must not be taken for none.
func (t *Trust) named(v *verdict, r *http.Request) (*authenticator.Response, error) {
	if v.proxy {
		if named, ok, err := v.by.authReqs.headers.AuthenticateRequest(r); ok || err != nil {
			return named, err
		}
	}
	if v.client != nil {
		return v.client, nil
	}
	if v.err != nil {
		return nil, fmt.Errorf("verify the client's certificate: %w", v.err)
	}
	return nil, nil
}

// AuthenticateRequest implements authenticator.Request.
func (t *Trust) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	who, err := t.named(t.judge(r), r)
	return who, who != nil, err
}

// IsProxy says whether the connection of a request is a trusted front proxy's, whoever it may name.
func (t *Trust) IsProxy(r *http.Request) bool { return t.judge(r).proxy }
