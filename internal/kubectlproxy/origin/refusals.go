package origin

import (
	"errors"
	"net/http"
	"strings"
	"sync"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/streaming/pkg/httpstream"
)

// Bounds of what is remembered about refused tunnels.
const (
	// RefusalTTL is how long tunnels into a namespace are not tried again after the API server has refused one.
	RefusalTTL = 5 * time.Minute
	// MaxRefusals is how many namespaces are remembered.
	MaxRefusals = 1024
)

// refusals are the namespaces into which no tunnel leads. The zero value has none.
type refusals struct {
	mu    sync.Mutex
	until map[refusalKey]time.Time
}

type refusalKey struct {
	config    *rest.Config
	namespace string
}

func (r *refusals) has(config *rest.Config, namespace string) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	return time.Now().Before(r.until[refusalKey{config, namespace}])
}

func (r *refusals) add(config *rest.Config, namespace string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.until) >= MaxRefusals || r.until == nil {
		r.until = map[refusalKey]time.Time{} // it costs one more try each
	}
	r.until[refusalKey{config, namespace}] = time.Now().Add(RefusalTTL)
}

// refused says whether the error of a tunnel means that none can be had: the user may not, the API server or something
// before it cannot. A pod that does not exist is another matter.
func refused(err error) bool {
	var known apierrors.APIStatus
	if !errors.As(statusCause(err), &known) {
		return false
	}
	s := known.Status()
	switch s.Code {
	case http.StatusForbidden, http.StatusMethodNotAllowed, http.StatusUpgradeRequired, http.StatusNotImplemented:
		return true
	case http.StatusNotFound:
		return s.Details == nil || s.Details.Kind != "pods" || s.Details.Name == ""
	case http.StatusBadRequest: // "Upgrade request required": something on the way has taken the Upgrade header off
		return strings.Contains(strings.ToLower(s.Message), "upgrade")
	}
	return s.Code < http.StatusBadRequest
}

// statusCause finds the API server's answer in client-go's error, which hides it from errors.As.
func statusCause(err error) error {
	var upgrade *httpstream.UpgradeFailureError
	if errors.As(err, &upgrade) {
		return upgrade.Cause
	}
	return err
}
