package server

import (
	"context"
	"fmt"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"

	authnv1 "k8s.io/api/authentication/v1"
	authzv1 "k8s.io/api/authorization/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authentication/group"
	"k8s.io/apiserver/pkg/authentication/request/anonymous"
	unionauthn "k8s.io/apiserver/pkg/authentication/request/union"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/authorization/path"
	unionauthz "k8s.io/apiserver/pkg/authorization/union"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"varco.dev/internal/httpproxy/vouch"
)

const (
	// reviewQPS and reviewBurst bound the reviews that miss the caches, as upstream's options do.
	reviewQPS   = 200
	reviewBurst = 400

	// deniedPause is how often the log says that reviews are forbidden.
	deniedPause = time.Minute
	// deniedRetry is how often a review is tried after one was forbidden, whether clients ask or not.
	deniedRetry = 10 * time.Second
)

// reviewer asks the API server who a token is, and what users may.
type reviewer struct {
	authn *kubernetes.Clientset // also for the ConfigMap of trust
	authz *kubernetes.Clientset
	denied
}

func newReviewer(o *Options, config *rest.Config, log *slog.Logger) (*reviewer, error) {
	r := &reviewer{denied: denied{log: log}}
	var err error
	if r.authn, err = r.client(o.Authentication.RemoteKubeConfigFile, config, 0); err != nil {
		return nil, fmt.Errorf("make the client for TokenReviews: %w", err)
	}
	if r.authz, err = r.client(o.Authorization.RemoteKubeConfigFile, config, o.Authorization.ClientTimeout); err != nil {
		return nil, fmt.Errorf("make the client for SubjectAccessReviews: %w", err)
	}
	return r, nil
}

// client returns a client with the account of a kubeconfig, or of the configuration that all else goes by.
func (r *reviewer) client(file string, config *rest.Config, timeout time.Duration) (*kubernetes.Clientset, error) {
	if file != "" {
		var err error
		if config, err = clientcmd.BuildConfigFromFlags("", file); err != nil {
			return nil, fmt.Errorf("read the kubeconfig %s: %w", file, err)
		}
	}
	config = rest.CopyConfig(config)
	config.QPS, config.Burst, config.Timeout = reviewQPS, reviewBurst, timeout
	config.Wrap(r.watch)
	return kubernetes.NewForConfig(config)
}

// tokens returns what authenticates bearer tokens, in the header or in a WebSocket's subprotocol, by TokenReviews. Answers
// are kept for --authentication-token-webhook-cache-ttl.
func (r *reviewer) tokens(o *Options) (authenticator.Request, error) {
	config := authenticatorfactory.DelegatingAuthenticatorConfig{
		TokenAccessReviewClient:  r.authn.AuthenticationV1(),
		TokenAccessReviewTimeout: o.Authentication.TokenRequestTimeout,
		WebhookRetryBackoff:      o.Authentication.WebhookRetryBackoff,
		CacheTTL:                 o.Authentication.CacheTTL,
	}
	a, _, err := config.New()
	return a, err
}

// authenticator returns what authenticates requests, in upstream's order: front proxies, certificates, tokens, and nobody
// only where there was nothing to check.
func (r *reviewer) authenticator(o *Options, t *vouch.Trust) (authenticator.Request, error) {
	tokens, err := r.tokens(o)
	if err != nil {
		return nil, fmt.Errorf("prepare the authentication: %w", err)
	}
	a := unionauthn.New(group.NewAuthenticatedGroupAdder(t), tokens)
	if c := o.Authentication.Anonymous; c != nil && c.Enabled {
		a = unionauthn.NewFailOnError(a, anonymous.NewAuthenticator(c.Conditions))
	}
	return a, nil
}

// authorizer returns what authorizes requests, as upstream's DelegatingAuthorizationOptions: some groups and paths always,
// all else by SubjectAccessReviews, whose answers are kept for --authorization-webhook-cache-…-ttl.
func (r *reviewer) authorizer(o *Options) (authorizer.Authorizer, error) {
	paths, err := path.NewAuthorizer(o.Authorization.AlwaysAllowPaths)
	if err != nil {
		return nil, fmt.Errorf("--authorization-always-allow-paths: %w", err)
	}
	config := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: r.authz.AuthorizationV1(),
		AllowCacheTTL:             o.Authorization.AllowCacheTTL,
		DenyCacheTTL:              o.Authorization.DenyCacheTTL,
		WebhookRetryBackoff:       o.Authorization.WebhookRetryBackoff,
	}
	reviews, err := config.New()
	if err != nil {
		return nil, fmt.Errorf("prepare the authorization: %w", err)
	}
	return unionauthz.New(
		unionauthz.NamedAuthorizer{AuthorizerName: "kubernetes.io/always-allow-groups", Authorizer: authorizerfactory.NewPrivilegedGroups(o.Authorization.AlwaysAllowGroups...)},
		unionauthz.NamedAuthorizer{AuthorizerName: "kubernetes.io/always-allow-paths", Authorizer: paths},
		unionauthz.NamedAuthorizer{AuthorizerName: "kubernetes.io/webhook", Authorizer: reviews},
	)
}

// Run finds out when reviews that were forbidden are allowed again, until the context ends: whoever goes by Ready sends no
// clients meanwhile, for whom the API server would be asked.
func (r *reviewer) Run(ctx context.Context) error { return vouch.Every(ctx, deniedRetry, r.retry) }

// retry asks for a review of the kind that was forbidden. What it says does not matter.
func (r *reviewer) retry(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, deniedRetry)
	defer cancel()
	var err error
	switch r.forbidden() {
	case "":
		return
	case "tokenreviews":
		review := &authnv1.TokenReview{Spec: authnv1.TokenReviewSpec{Token: "nobody's"}}
		_, err = r.authn.AuthenticationV1().TokenReviews().Create(ctx, review, metav1.CreateOptions{})
	default:
		review := &authzv1.SubjectAccessReview{Spec: authzv1.SubjectAccessReviewSpec{
			User: user.Anonymous, NonResourceAttributes: &authzv1.NonResourceAttributes{Path: "/readyz", Verb: "get"},
		}}
		_, err = r.authz.AuthorizationV1().SubjectAccessReviews().Create(ctx, review, metav1.CreateOptions{})
	}
	if err != nil {
		r.log.Debug("reviews are still not answered", "error", err)
	}
}

// denied notices that this server's own account may not ask for reviews. Clients get 401 or 500 then, which does not help
// whoever has to mend it.
type denied struct {
	log *slog.Logger

	mu    sync.Mutex // guards the fields below
	last  time.Time  // when it was logged
	which string     // the resource that may not be created; empty: none
}

// watch is a transport.WrapperFunc.
func (d *denied) watch(rt http.RoundTripper) http.RoundTripper {
	return roundTripper(func(r *http.Request) (*http.Response, error) {
		resp, err := rt.RoundTrip(r)
		which := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
		if err == nil && r.Method == http.MethodPost && strings.HasSuffix(which, "reviews") {
			d.note(which, resp.StatusCode)
		}
		return resp, err
	})
}

func (d *denied) note(which string, code int) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if code != http.StatusForbidden && code != http.StatusUnauthorized {
		if d.which == which {
			d.which = ""
		}
		return
	}
	d.which = which
	if time.Since(d.last) < deniedPause {
		return
	}
	d.last = time.Now()
	d.log.Error("requests cannot be judged: "+hint(which), "code", code)
}

// forbidden returns the kind of reviews that was forbidden the last time; empty: none.
func (d *denied) forbidden() string {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.which
}

// wrong returns what is missing, or nil.
func (d *denied) wrong() error {
	if which := d.forbidden(); which != "" {
		return fmt.Errorf("ask the API server about clients: %s", hint(which))
	}
	return nil
}

func hint(which string) string {
	return "this server's own account may not create " + which + ": bind the ClusterRole system:auth-delegator to it"
}

type roundTripper func(*http.Request) (*http.Response, error)

// RoundTrip implements http.RoundTripper.
func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }
