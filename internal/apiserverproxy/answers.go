package apiserverproxy

import (
	"errors"
	"fmt"
	"net/http"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"

	"varco.dev/internal/apiserverproxy/outbound"
	"varco.dev/internal/httpproxy"
)

// answers writes errors as kube-apiserver does: a metav1.Status in the encoding that the client asks for.
type answers struct {
	codecs runtime.NegotiatedSerializer
}

func newAnswers() answers {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	return answers{serializer.NewCodecFactory(scheme)}
}

// fail answers with an error.
func (a answers) fail(w http.ResponseWriter, r *http.Request, err error) {
	if r.Context().Err() != nil {
		panic(http.ErrAbortHandler) // the client is gone; net/http would answer 200
	}
	httpproxy.LeaveBody(w, r)
	responsewriters.ErrorNegotiated(err, a.codecs, schema.GroupVersion{Version: "v1"}, w, r)
}

// status answers with an error of httpproxy's.
func (a answers) status(w http.ResponseWriter, r *http.Request, s metav1.Status) {
	if d := s.Details; d != nil && d.RetryAfterSeconds == 0 && d.Name == "" && len(d.Causes) == 0 {
		s.Details = nil
	}
	responsewriters.ErrorNegotiated(&apierrors.StatusError{ErrStatus: s}, a.codecs, schema.GroupVersion{Version: "v1"}, w, r)
}

func gone(path, today string) error {
	return httpproxy.Status(http.StatusGone, metav1.StatusReasonGone, fmt.Sprintf(
		"the path %s was taken out of Kubernetes: redirects and the proxy verb were replaced by the proxy subresource; ask for %s", path, today))
}

// unanswered is the error of a request that no endpoint answered, in the words and codes of the original: 503, or 500 if the
// request asked for an upgrade. There is no Retry-After in it: clients of Kubernetes would ask up to ten times again.
func unanswered(upgrade bool, err error) error {
	var refused *outbound.RefusedError
	switch {
	case errors.As(err, &refused):
		return apierrors.NewBadRequest(refused.Error())
	case upgrade:
		return httpproxy.Status(http.StatusInternalServerError, metav1.StatusReasonUnknown, "error dialing backend: "+err.Error())
	}
	s := apierrors.NewServiceUnavailable("error trying to reach service: " + err.Error())
	s.ErrStatus.Details = &metav1.StatusDetails{} // httpproxy adds Retry-After where there are none
	return s
}
