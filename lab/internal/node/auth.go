package node

import (
	"fmt"
	"net/http"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/authenticatorfactory"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/authorization/authorizerfactory"
	"k8s.io/apiserver/pkg/server/dynamiccertificates"
)

// Times for which the API server's answers are kept, the kubelet's defaults.
const (
	tokenTTL = 2 * time.Minute
	allowTTL = 5 * time.Minute
	denyTTL  = 30 * time.Second
)

// gate lets requests through as the kubelet does: the user from a client certificate or a bearer token, and what the
// user may from the API server.
type gate struct {
	node string
	who  authenticator.Request
	may  authorizer.Authorizer
	ca   *dynamiccertificates.DynamicFileCAContent // to be run: it reads the file again when it changes
}

// newGate makes the gate of the agent's server.
func (a *Agent) newGate() (*gate, error) {
	ca, err := dynamiccertificates.NewDynamicCAContentFromFile("client-ca", a.cfg.Server.ClientCAFile)
	if err != nil {
		return nil, fmt.Errorf("read client certificate authority: %w", err)
	}
	retry := wait.Backoff{Duration: 500 * time.Millisecond, Factor: 1.5, Steps: 5}
	who, _, err := authenticatorfactory.DelegatingAuthenticatorConfig{
		TokenAccessReviewClient: a.cfg.Client.AuthenticationV1(), TokenAccessReviewTimeout: 10 * time.Second,
		WebhookRetryBackoff: &retry, CacheTTL: tokenTTL, ClientCertificateCAContentProvider: ca,
	}.New()
	if err != nil {
		return nil, fmt.Errorf("make authenticator: %w", err)
	}
	may, err := authorizerfactory.DelegatingAuthorizerConfig{
		SubjectAccessReviewClient: a.cfg.Client.AuthorizationV1(),
		AllowCacheTTL:             allowTTL, DenyCacheTTL: denyTTL, WebhookRetryBackoff: &retry,
	}.New()
	if err != nil {
		return nil, fmt.Errorf("make authorizer: %w", err)
	}
	return &gate{node: a.cfg.Name, who: who, may: may, ca: ca}, nil
}

// protect wraps a handler by the gate.
func (g *gate) protect(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		// The authenticator takes the token out of the request.
		resp, ok, err := g.who.AuthenticateRequest(r)
		if err != nil || !ok {
			http.Error(w, "Unauthorized", http.StatusUnauthorized)
			return
		}
		attrs := authorizer.AttributesRecord{
			User: resp.User, Verb: verbOf(r.Method), APIVersion: "v1", Resource: "nodes", Name: g.node,
			ResourceRequest: true, Path: r.URL.Path,
		}
		for _, sub := range subresourcesOf(r.URL.Path) {
			attrs.Subresource = sub
			if d, _, err := g.may.Authorize(r.Context(), attrs); err == nil && d == authorizer.DecisionAllow {
				next.ServeHTTP(w, r)
				return
			}
		}
		http.Error(w, fmt.Sprintf("Forbidden (user=%s, verb=%s, resource=nodes, subresource=%s)",
			resp.User.GetName(), attrs.Verb, attrs.Subresource), http.StatusForbidden)
	})
}

func verbOf(method string) string {
	switch method {
	case http.MethodPost:
		return "create"
	case http.MethodPut:
		return "update"
	case http.MethodPatch:
		return "patch"
	case http.MethodDelete:
		return "delete"
	}
	return "get"
}

// subresourcesOf returns the subresources of nodes one of which a user must be allowed to reach a path.
func subresourcesOf(path string) []string {
	first, _, _ := strings.Cut(strings.TrimPrefix(path, "/"), "/")
	switch first {
	case "metrics", "stats":
		return []string{first}
	case "logs":
		return []string{"log"}
	case "pods", "healthz", "configz":
		return []string{first, "proxy"}
	}
	return []string{"proxy"}
}
