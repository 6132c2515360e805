package server

import (
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/audit"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/request/headerrequest"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/filters/impersonation"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/features"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	utilfeature "k8s.io/apiserver/pkg/util/feature"

	"varco.dev/internal/httpproxy/identity"
	"varco.dev/internal/httpproxy/vouch"
)

// chain is what kube-apiserver does with a request before it is served, in its order (server.DefaultBuildHandlerChain), with
// its own filters. Those are left out that do nothing for a request that may last (deadlines, wait groups, and with them
// priority and fairness, from which proxied requests are exempt), and those that are done otherwise here: the log of
// requests, tracing, CORS.
type chain struct {
	infos   *request.RequestInfoFactory
	authn   authenticator.Request
	authz   authorizer.Authorizer
	trust   *vouch.Trust
	backend audit.Backend // nil: no audit
	policy  audit.PolicyRuleEvaluator
	codecs  serializer.CodecFactory
}

// newCodecs returns the forms that errors are answered in: JSON, YAML and protobuf.
func newCodecs() serializer.CodecFactory {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	scheme.AddUnversionedTypes(schema.GroupVersion{Version: "v1"}, &metav1.Status{}, &metav1.APIVersions{}, &metav1.APIGroupList{}, &metav1.APIGroup{}, &metav1.APIResourceList{})
	return serializer.NewCodecFactory(scheme)
}

// build returns a handler that lets requests through to next that are authenticated, and authorized unless public.
func (c *chain) build(next http.Handler, public bool) http.Handler {
	h := c.cleaned(next)
	if !public {
		h = filters.WithAuthorization(h, c.authz, c.codecs)
	}
	if utilfeature.DefaultFeatureGate.Enabled(features.ConstrainedImpersonation) {
		h = impersonation.WithConstrainedImpersonation(h, c.authz, c.codecs)
	} else {
		h = impersonation.WithImpersonation(h, c.authz, c.codecs)
	}
	failed := filters.Unauthorized(c.codecs)
	if c.backend != nil && c.policy != nil {
		h = filters.WithAudit(h, c.backend, c.policy, longRunning)
		failed = filters.WithFailedAuthenticationAudit(failed, c.backend, c.policy)
	}
	h = filters.WithAuthentication(h, c.authn, failed, nil, c.headerNames())
	h = filters.WithCacheControl(h)
	if c.backend != nil && c.policy != nil {
		h = complete(filters.WithLatencyTrackers(h)) // for annotations of audit events
	}
	h = filters.WithRequestInfo(h, c.infos)
	if c.backend != nil && c.policy != nil {
		h = filters.WithRequestReceivedTimestamp(h)
	}
	h = genericfilters.WithPanicRecovery(h, c.infos)
	return filters.WithAuditInit(h)
}

// longRunning says which requests upstream would let last (controlplane/apiserver/config.go).
func longRunning(_ *http.Request, info *request.RequestInfo) bool {
	return info.Verb == "watch" || info.Verb == "proxy" || info.IsResourceRequest && info.Subresource == "proxy"
}

// headerNames has WithAuthentication remove the headers of identities that the API server reads, too.
func (c *chain) headerNames() *authenticatorfactory.RequestHeaderConfig {
	names := func(of func(identity.Headers) []string) headerrequest.StringSliceProvider {
		return headerrequest.StringSliceProviderFunc(func() []string { return of(c.trust.Headers()) })
	}
	return &authenticatorfactory.RequestHeaderConfig{
		UsernameHeaders:     names(func(h identity.Headers) []string { return h.Users }),
		UIDHeaders:          names(func(h identity.Headers) []string { return h.UIDs }),
		GroupHeaders:        names(func(h identity.Headers) []string { return h.Groups }),
		ExtraHeaderPrefixes: names(func(h identity.Headers) []string { return h.ExtraPrefixes }),
	}
}

// cleaned removes what looks like an identity in spellings that upstream does not look for: a target may.
func (c *chain) cleaned(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		c.trust.Headers().Strip(r.Header)
		next.ServeHTTP(w, r)
	})
}

// stranger returns upstream's answer to whom it does not know. It is audited: the API server does not see such a request.
func stranger(c *chain) http.Handler {
	refusing := *c
	refusing.authn = nobody{}
	return refusing.build(http.NotFoundHandler(), true)
}

// nobody authenticates no request.
type nobody struct{}

// AuthenticateRequest implements authenticator.Request.
func (nobody) AuthenticateRequest(*http.Request) (*authenticator.Response, bool, error) {
	return nil, false, nil
}
