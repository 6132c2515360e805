package cluster

import (
	"fmt"
	"log/slog"
	"net"
	"time"

	"k8s.io/client-go/tools/clientcmd"
)

// What happens to an Authorization header that a client sends. client-go, and so kubectl proxy, lets it take the place
// of the kubeconfig's credential without a word.
const (
	IgnoreAuthorization  = "ignore"  // it is dropped if the kubeconfig has a credential; a Warning header and one line of the log say so
	ForwardAuthorization = "forward" // it is sent in place of the kubeconfig's token; a client certificate is still shown
	RejectAuthorization  = "reject"  // the request is answered 400
)

// AllContexts as the only element of Config.Contexts means every context of the kubeconfig.
const AllContexts = "all"

// Config says where clusters come from, and how requests get there.
type Config struct {
	// Load returns a reader of the kubeconfig as it is now; a second call reads the files again. The empty name means the
	// current context with all overrides of the command line. Required.
	Load func(context string) clientcmd.ClientConfig
	// Files returns the paths of the kubeconfig files that decide, whether they exist or not. Their content is followed.
	// nil: nothing is followed.
	Files func() []string
	// Current is the context that the command line names; empty: the kubeconfig's current-context.
	Current string
	// Contexts are those that are served by name. nil: none. AllContexts alone: all.
	Contexts []string
	// Keepalive is the TCP keepalive of connections of upgraded requests (exec, attach, port-forward).
	Keepalive KeepAlive
	// ServerPath puts the path of the kubeconfig's server before the path of each request, as Rancher's
	// https://host/k8s/clusters/c-1 needs.
	ServerPath bool
	// ClientAuthorization is one of IgnoreAuthorization, which is also what anything unknown means, ForwardAuthorization
	// and RejectAuthorization.
	ClientAuthorization string
	// Log is required.
	Log *slog.Logger
}

// KeepAlive is a TCP keepalive. The zero value means Go's default, a probe after 15 s of silence, which is what
// kubectl proxy has. Its own flag calls 0 "disabled" and means that default; here a Set period of 0 sends no probes.
type KeepAlive struct {
	Set    bool
	Period time.Duration
}

// dialer returns the dialer of upgraded connections. 30 s to connect is what client-go waits.
func (k KeepAlive) dialer() *net.Dialer {
	d := &net.Dialer{Timeout: connectTimeout}
	switch {
	case !k.Set:
	case k.Period <= 0:
		d.KeepAlive = -1 // net.Dialer: 0 is the default, negative disables
	default:
		d.KeepAlive = k.Period
	}
	return d
}

// CheckAuthorization says what is wrong with a value of Config.ClientAuthorization, if anything.
func CheckAuthorization(value string) error {
	switch value {
	case IgnoreAuthorization, ForwardAuthorization, RejectAuthorization:
		return nil
	}
	return fmt.Errorf("client authorization %q: want %s, %s or %s",
		value, IgnoreAuthorization, ForwardAuthorization, RejectAuthorization)
}
