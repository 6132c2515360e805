package server

import (
	"context"
	"log/slog"
	"net/http"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/rest"

	"varco.dev/internal/observe"
)

// Group and Version are those of the APIService that an Aggregated is for.
const (
	Group   = "proxy.varco.dev"
	Version = "v1"
)

// AggregatedConfig is what NewAggregated wants to know.
type AggregatedConfig struct {
	Options *Options // required; validated before
	// Kubeconfig is the API server, and the account that asks it about clients; see FrontConfig. Required.
	Kubeconfig *rest.Config
	// IsProxy says which requests are for Proxy: those to /apis/proxy.varco.dev/v1/…/proxy. It must not block. Required.
	IsProxy func(*http.Request) bool
	// Proxy makes the handler of those requests, which have passed what FrontConfig.Proxy's have, and in the core group as
	// well. RemoteAddr is that of the API server's client. Host is the one that X-Forwarded-Host names; kube-apiserver's
	// aggregation layer names none, and it is our own then. next answers 404. Required.
	Proxy func(next http.Handler, authz authorizer.Authorizer) http.Handler
	Drain func(context.Context) error // as FrontConfig's
	// Access counts requests and logs them at verbosity 3. Optional.
	Access *observe.AccessMetrics
	Log    *slog.Logger // required
}

// Aggregated is the extension API server of the APIService v1.proxy.varco.dev: the proxy subresources under another group, for
// clusters whose API server nobody can put something in or in front of.
type Aggregated struct {
	*server
	config AggregatedConfig
}

// NewAggregated builds an Aggregated. It opens no connection and no port; Run does.
func NewAggregated(c AggregatedConfig) (*Aggregated, error) {
	s, err := newServer(c.Options, c.Kubeconfig, c.Log)
	if err != nil {
		return nil, err
	}
	chain, err := s.chain()
	if err != nil {
		return nil, err
	}
	chain.authz = andCore(chain.authz)
	documents, err := newDocuments(chain.codecs)
	if err != nil {
		return nil, err
	}
	a := &Aggregated{server: s, config: c}
	documents.ready(s.Ready)
	s.drains = drainsOf(c.Drain)
	proxy := checked(Group, unhopped(s.trust, c.Proxy(http.NotFoundHandler(), chain.authz)))
	a.handler = counted(c.Log, c.Access, chain.build(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if c.IsProxy(r) {
			proxy.ServeHTTP(w, r)
		} else {
			documents.ServeHTTP(w, r)
		}
	}), false))
	return a, nil
}

// Run serves until the context ends, and then gives what is open its time to end. It returns nil then, or why it could not
// serve. It waits for an API server that is away when it starts.
func (a *Aggregated) Run(ctx context.Context) error {
	if err := a.pairs.Load(); err != nil {
		return err
	}
	if err := a.trust.Start(ctx); err != nil || ctx.Err() != nil {
		return err
	}
	listener, err := a.secure()
	if err != nil {
		return err
	}
	a.log.Info("serving HTTPS for the aggregation layer", "address", listener.Addr(), "group", groupVersion())
	return a.run(ctx, files{a.pairs.Files(), a.pairs.Load}, listener)
}

func groupVersion() schema.GroupVersion { return schema.GroupVersion{Group: Group, Version: Version} }

// andCore has what is allowed in the own group allowed only if the core group's subresource is as well: whoever may create
// roles for this group must not be able to hand out more than the cluster's own rules do.
func andCore(a authorizer.Authorizer) authorizer.Authorizer {
	return authorizer.AuthorizerFunc(func(ctx context.Context, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
		decision, reason, err := a.Authorize(ctx, attrs)
		if decision != authorizer.DecisionAllow || !attrs.IsResourceRequest() || attrs.GetAPIGroup() != Group {
			return decision, reason, err
		}
		core, coreReason, err := a.Authorize(ctx, &authorizer.AttributesRecord{
			User: attrs.GetUser(), Verb: attrs.GetVerb(), Namespace: attrs.GetNamespace(), APIVersion: "v1",
			Resource: attrs.GetResource(), Subresource: attrs.GetSubresource(), Name: attrs.GetName(), ResourceRequest: true,
		})
		if core == authorizer.DecisionAllow {
			return decision, reason, err
		}
		because := "the same is not allowed for resource \"" + attrs.GetResource() + "/" + attrs.GetSubresource() + "\" in API group \"\""
		if coreReason != "" {
			because += ": " + coreReason
		}
		return core, because, err
	})
}
