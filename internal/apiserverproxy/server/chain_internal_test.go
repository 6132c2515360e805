package server

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/sets"
	auditv1 "k8s.io/apiserver/pkg/apis/audit/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authentication/user"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/request"
	genericserver "k8s.io/apiserver/pkg/server"
	genericfilters "k8s.io/apiserver/pkg/server/filters"
	utilfeature "k8s.io/apiserver/pkg/util/feature"

	"varco.dev/internal/httpproxy/vouch"
)

// rules authenticates and authorizes by words in the request, and remembers what it was asked.
type rules struct {
	asked []authorizer.AttributesRecord
}

// AuthenticateRequest takes the bearer token for a user's name.
func (*rules) AuthenticateRequest(r *http.Request) (*authenticator.Response, bool, error) {
	name, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	switch {
	case !ok:
		return &authenticator.Response{User: &user.DefaultInfo{Name: user.Anonymous, Groups: []string{user.AllUnauthenticated}}}, true, nil
	case name == "wrong":
		return nil, false, errors.New("invalid bearer token")
	}
	return &authenticator.Response{User: &user.DefaultInfo{Name: name, UID: "7", Groups: []string{"devs", user.AllAuthenticated}, Extra: map[string][]string{"k": {"v"}}}}, true, nil
}

func (a *rules) authorize(_ context.Context, attrs authorizer.Attributes) (authorizer.Decision, string, error) {
	a.asked = append(a.asked, authorizer.AttributesRecord{
		User: attrs.GetUser(), Verb: attrs.GetVerb(), Namespace: attrs.GetNamespace(), APIGroup: attrs.GetAPIGroup(), APIVersion: attrs.GetAPIVersion(),
		Resource: attrs.GetResource(), Subresource: attrs.GetSubresource(), Name: attrs.GetName(), ResourceRequest: attrs.IsResourceRequest(), Path: attrs.GetPath(),
	})
	switch name := attrs.GetUser().GetName(); {
	case attrs.GetVerb() == "" && name != "admin":
		return authorizer.DecisionNoOpinion, "", nil
	case name == "alice", name == "admin", name == "root":
		return authorizer.DecisionAllow, "RBAC: allowed", nil
	case name == "broken":
		return authorizer.DecisionNoOpinion, "", errors.New("the review did not come")
	case name == "reason":
		return authorizer.DecisionDeny, "a <reason>", nil
	}
	return authorizer.DecisionNoOpinion, "", nil
}

// sides are the chain under test and upstream's, with the same rules and the same target.
type sides struct {
	rules    [2]*rules
	logs     [2]string // paths of audit logs
	handlers [2]http.Handler
	reached  [2][]string // what the targets saw of requests
	stop     chan struct{}
}

const auditPolicy = `
apiVersion: audit.k8s.io/v1
kind: Policy
rules:
- level: None
  users: ["quiet"]
- level: RequestResponse
`

func newSides(t *testing.T) *sides {
	t.Helper()
	s := &sides{stop: make(chan struct{})}
	dir := t.TempDir()
	policy := filepath.Join(dir, "policy.yaml")
	if err := os.WriteFile(policy, []byte(auditPolicy), 0o600); err != nil {
		t.Fatal(err)
	}
	for side := range s.handlers {
		s.rules[side], s.logs[side] = &rules{}, filepath.Join(dir, fmt.Sprint("audit", side))
		o := NewOptions()
		o.Audit.PolicyFile, o.Audit.LogOptions.Path = policy, s.logs[side]
		config := genericserver.NewConfig(newCodecs())
		if err := o.Audit.ApplyTo(config); err != nil {
			t.Fatal(err)
		}
		if err := config.AuditBackend.Run(s.stop); err != nil {
			t.Fatal(err)
		}
		s.handlers[side] = s.chain(side, config)
	}
	t.Cleanup(func() { close(s.stop) })
	return s
}

func (s *sides) chain(side int, config *genericserver.Config) http.Handler {
	authz := authorizer.AuthorizerFunc(s.rules[side].authorize)
	target := http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { s.target(side, w, r) })
	if side == 0 {
		c := &chain{
			infos: vouch.NewInfos(), authn: s.rules[side], authz: authz, trust: vouch.NewTrust(vouch.TrustConfig{}),
			backend: config.AuditBackend, policy: config.AuditPolicyRuleEvaluator, codecs: newCodecs(),
		}
		return c.build(target, false)
	}
	config.RequestInfoResolver = genericserver.NewRequestInfoResolver(config)
	config.FeatureGate = utilfeature.DefaultFeatureGate
	config.Authentication.Authenticator, config.Authorization.Authorizer = s.rules[side], authz
	config.LongRunningFunc = genericfilters.BasicLongRunningRequestCheck(sets.NewString("watch", "proxy"), sets.NewString("attach", "exec", "proxy", "log", "portforward"))
	return genericserver.DefaultBuildHandlerChain(target, config)
}

func (s *sides) target(side int, w http.ResponseWriter, r *http.Request) {
	info, _ := request.RequestInfoFrom(r.Context())
	who, _ := request.UserFrom(r.Context())
	body, _ := io.ReadAll(r.Body)
	s.reached[side] = append(s.reached[side], fmt.Sprintf("%+v %+v %v %s", info, who, r.Header, body))
	if r.URL.Query().Has("silent") {
		return
	}
	w.WriteHeader(http.StatusTeapot)
	_, _ = io.WriteString(w, "served")
}

// TestChainIsUpstreams sends each request through the chain and through kube-apiserver's own, and compares answers, what the
// authorizer was asked, what reached the target, and the audit log.
func TestChainIsUpstreams(t *testing.T) {
	s := newSides(t)
	const pod, node = "/api/v1/namespaces/a/pods/https:web:443/proxy", "/api/v1/nodes/one:10250/proxy/"
	type header = map[string]string
	for _, c := range []struct {
		method, target string
		header         header
	}{
		{"GET", pod, header{"Authorization": "Bearer alice"}}, {"HEAD", pod, header{"Authorization": "Bearer alice"}},
		{"POST", pod + "/x?dryRun=All", header{"Authorization": "Bearer alice"}}, {"PUT", pod, header{"Authorization": "Bearer alice"}},
		{"PATCH", pod, header{"Authorization": "Bearer alice"}}, {"DELETE", pod, header{"Authorization": "Bearer alice"}},
		{"OPTIONS", pod, header{"Authorization": "Bearer alice"}}, {"OPTIONS", pod, header{"Authorization": "Bearer admin"}}, {"BREW", pod, header{"Authorization": "Bearer alice"}},
		{"GET", node, header{"Authorization": "Bearer alice"}}, {"GET", pod + "?watch=true&fieldSelector=a%3Db&labelSelector=c", header{"Authorization": "Bearer alice"}},
		{"GET", pod + "/%2F/..//x;y?silent", header{"Authorization": "Bearer alice"}}, {"GET", "/api/v1/namespaces/a/services/web/proxy/deep/path", header{"Authorization": "Bearer alice"}},
		{"GET", pod, nil}, {"GET", pod, header{"Authorization": "Bearer wrong"}}, {"GET", pod, header{"Authorization": "Bearer nobody"}},
		{"GET", node, header{"Authorization": "Bearer nobody"}}, {"GET", pod, header{"Authorization": "Bearer reason"}}, {"GET", pod, header{"Authorization": "Bearer broken"}},
		{"GET", pod, header{"Authorization": "Bearer quiet"}},
		{"GET", pod, header{"Authorization": "Bearer nobody", "Accept": "application/yaml"}}, {"GET", pod, header{"Authorization": "Bearer wrong", "Accept": "application/vnd.kubernetes.protobuf"}},
		{"GET", pod, header{"Authorization": "Bearer nobody", "Accept": "text/html"}},
		{"GET", pod, header{"Authorization": "Bearer alice", "Impersonate-User": "root", "Impersonate-Group": "g", "Impersonate-Extra-Scopes": "s"}},
		{"GET", pod, header{"Authorization": "Bearer nobody", "Impersonate-User": "root"}}, {"GET", pod, header{"Authorization": "Bearer alice", "Impersonate-Group": "g"}},
		{"GET", pod, header{"Authorization": "Bearer alice", "X-Remote-User": "mallory", "X-Remote-Group": "system:masters", "X-Remote-Extra-A": "b", "Cookie": "a=b", "X-Forwarded-For": "1.2.3.4"}},
		{"GET", pod, header{"Authorization": "Bearer alice", "Audit-Id": "given", "User-Agent": "test"}},
		{"GET", "/healthz/proxy", header{"Authorization": "Bearer alice"}}, {"GET", "/api/v1/proxy/nodes/a", header{"Authorization": "Bearer alice"}},
	} {
		t.Run(c.method+" "+c.target+" "+fmt.Sprint(c.header), func(t *testing.T) {
			var answers [2]string
			for side, h := range s.handlers {
				r := httptest.NewRequest(c.method, c.target, strings.NewReader("body"))
				for name, value := range c.header {
					r.Header.Set(name, value)
				}
				if c.header["Audit-Id"] == "" {
					r.Header.Set("Audit-Id", "fixed")
				}
				w := httptest.NewRecorder()
				h.ServeHTTP(w, r)
				answers[side] = fmt.Sprintf("%d %v %s", w.Code, w.Header(), w.Body)
			}
			compare(t, "answers", answers)
			compare(t, "what the authorizer was asked", [2][]authorizer.AttributesRecord{s.rules[0].asked, s.rules[1].asked})
			compare(t, "what reached the target", s.reached)
			compare(t, "audit events", [2][]auditv1.Event{s.events(t, 0), s.events(t, 1)})
		})
	}
	if n := len(s.events(t, 0)); n < 60 {
		t.Errorf("the audit log has %d events only", n)
	}
}

func compare[T any](t *testing.T, what string, got [2]T) {
	t.Helper()
	if diff := cmp.Diff(got[1], got[0]); diff != "" {
		t.Errorf("%s differ (-upstream +here):\n%s", what, diff)
	}
}

// events reads an audit log, without the times.
func (s *sides) events(t *testing.T, side int) (out []auditv1.Event) {
	t.Helper()
	content, err := os.ReadFile(s.logs[side])
	if err != nil {
		t.Fatal(err)
	}
	for line := range bytes.Lines(content) {
		var e auditv1.Event
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if e.RequestReceivedTimestamp.IsZero() || time.Since(e.StageTimestamp.Time) > time.Minute {
			t.Errorf("an event is without its time: %s", line)
		}
		e.RequestReceivedTimestamp, e.StageTimestamp = metav1.MicroTime{}, metav1.MicroTime{}
		out = append(out, e)
	}
	return slices.Clip(out)
}
