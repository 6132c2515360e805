package cluster

import (
	"net/http"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"varco.dev/internal/httpproxy"
)

// droppedWarning is a Warning header as API servers send them (RFC 7234, section 5.5; kubectl prints it).
const droppedWarning = `299 varco "the Authorization header of this request was dropped: ` +
	`the proxy's own credential was used (see --client-authorization)"`

// clientAuthorization decides about a request that has an Authorization header of its own.
func (c *Cluster) clientAuthorization(t httpproxy.Target) (httpproxy.Target, error) {
	switch choice := c.owner.config.ClientAuthorization; {
	case choice == ForwardAuthorization:
		return t, nil
	case choice == RejectAuthorization:
		return t, httpproxy.Status(http.StatusBadRequest, metav1.StatusReasonBadRequest,
			"requests with an Authorization header are rejected: the proxy uses its own credential (--client-authorization=reject)")
	case anonymous(c.Config):
		return t, nil // it takes no other one's place
	}
	c.owner.dropped.Do(func() {
		c.owner.config.Log.Warn("a client sent an Authorization header, which is dropped; --client-authorization says otherwise")
	})
	edit := t.Edit
	t.Edit = func(out *http.Request) {
		out.Header.Del("Authorization")
		if edit != nil {
			edit(out)
		}
	}
	t.EditResponse = func(resp *http.Response) error {
		resp.Header.Add("Warning", droppedWarning)
		return nil
	}
	return t, nil
}

// anonymous says whether the kubeconfig names no credential at all.
func anonymous(c *rest.Config) bool {
	token, basic := c.BearerToken != "" || c.BearerTokenFile != "", c.Username != ""
	certificate := c.CertFile != "" || len(c.CertData) > 0
	return !token && !basic && !certificate && c.ExecProvider == nil && c.AuthProvider == nil
}
