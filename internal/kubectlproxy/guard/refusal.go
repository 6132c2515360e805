package guard

import (
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/internal/httpproxy"
)

// The rules by which requests are refused: the names of the flags, and ruleMethod, ruleTarget and ruleUpgrade for what no
// flag allows.
const (
	ruleAcceptPaths   = "accept-paths"
	ruleRejectPaths   = "reject-paths"
	ruleAcceptHosts   = "accept-hosts"
	ruleRejectMethods = "reject-methods"
	ruleAcceptOrigins = "accept-origins"
	ruleAllow         = "allow"
	ruleReadOnly      = "read-only"
	ruleDeny          = "deny"
	ruleToken         = "require-token"
	ruleMethod        = "method"
	ruleTarget        = "target" // GET x:https://host/path, which has no path for package url, and is sent on as https://host/path
	ruleUpgrade       = "upgrade"
)

// Refusal says why a request may not go on.
type Refusal struct {
	Rule    string // the name of the flag that decided, without dashes; "method", "target" or "upgrade" where none did. Fit for a metric's label.
	Code    int    // 403, or 401 for a missing token
	Message string // what was refused, by which rule, and what allows it
}

// Error returns the message.
func (r *Refusal) Error() string { return r.Message }

// Status returns the refusal as the API server would put it: reason Forbidden, or Unauthorized for a missing token.
func (r *Refusal) Status() *apierrors.StatusError {
	reason := metav1.StatusReasonForbidden
	if r.Code == http.StatusUnauthorized {
		reason = metav1.StatusReasonUnauthorized
	}
	return httpproxy.Status(r.Code, reason, r.Message)
}

func forbid(rule, format string, args ...any) *Refusal {
	return &Refusal{Rule: rule, Code: http.StatusForbidden, Message: fmt.Sprintf(format, args...)}
}
