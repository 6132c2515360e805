package apiserverproxy

import (
	"log/slog"
	"net/http"
	"slices"

	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/apiserverproxy/balance"
	"varco.dev/internal/apiserverproxy/locate"
	"varco.dev/internal/apiserverproxy/outbound"
	"varco.dev/internal/httpproxy/identity"
)

// BaseCore and BaseAggregated are where the subresources are: those of the core group, and those of the group that an
// aggregated API server serves.
const (
	BaseCore       = "/api/v1"
	BaseAggregated = "/apis/proxy.varco.dev/v1"
)

// Defaults of Config.
const (
	DefaultMaxUpgrades  = 10_000
	DefaultMaxPerUser   = 5_000
	DefaultMaxPerTarget = 5_000
)

// Config is what New wants to know.
type Config struct {
	Log    *slog.Logger         // required
	Client kubernetes.Interface // required: Services, EndpointSlices, pods and nodes are watched with it
	// Next serves what is no proxy path. Optional: without it such requests are answered 404.
	Next http.Handler
	// Base is what proxy paths begin with. Default: BaseCore.
	Base string
	// Aggregated tells that requests come through the aggregation layer of an API server, which changes answers that look like
	// pages or redirects.
	Aggregated bool

	// Admission is asked with the operation CONNECT, as kube-apiserver asks it. Optional.
	Admission admission.Interface
	// Authorizer is asked for the permission to create where commands are run by an upgrade through a node; without it they
	// are refused unless the method is POST.
	Authorizer authorizer.UnconditionalAuthorizer
	// StrictUpgrades has every upgrade, and all that runs commands through a node, need the permission to create as well:
	// what they do is no mere reading, and the verb is only that of the method. It needs an Authorizer.
	StrictUpgrades bool
	// Identity are the headers that authenticating proxies use. None of them reaches a target, nor does one of impersonation.
	// Default: identity.Default.
	Identity identity.Headers

	Locate   locate.Config
	Outbound outbound.Config // Log is filled in; Own is added to
	Balance  balance.Config  // Log and Transports are filled in

	// MaxUpgrades is how many upgraded connections may be open at a time, those beyond are answered 503; MaxPerUser and
	// MaxPerTarget how many requests, upgrades included, of one user and to one node, pod or Service, those beyond are
	// answered 429. Defaults: DefaultMaxUpgrades, DefaultMaxPerUser, DefaultMaxPerTarget; below 0: no limit.
	MaxUpgrades, MaxPerUser, MaxPerTarget int
}

func (c Config) complete() Config {
	if c.Base == "" {
		c.Base = BaseCore
	}
	if c.Next == nil {
		c.Next = http.NotFoundHandler()
	}
	if len(c.Identity.Users) == 0 {
		c.Identity = identity.Default()
	}
	c.Identity.ExtraPrefixes = append(slices.Clip(c.Identity.ExtraPrefixes), "Impersonate-")
	c.MaxUpgrades = orDefault(c.MaxUpgrades, DefaultMaxUpgrades)
	c.MaxPerUser = orDefault(c.MaxPerUser, DefaultMaxPerUser)
	c.MaxPerTarget = orDefault(c.MaxPerTarget, DefaultMaxPerTarget)
	return c
}

func orDefault(n, most int) int {
	if n == 0 {
		return most
	}
	return n
}
