package cluster_test

import (
	"errors"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"varco.dev/internal/kubectlproxy/cluster"
)

// odd are names that kubeconfigs have.
var odd = []string{
	"a/b", "a:b", "a@b", "a b", "prod", "Prod", "user@Host.example:6443", "xn--bcher-kva", "svc", "Ärger", "🙂", "-", "..",
	"arn:aws:eks:us-east-1:123456789012:cluster/a-cluster-with-a-name-that-is-longer-than-a-label-may-be",
	"arn:aws:eks:us-east-1:123456789012:cluster/a-cluster-with-a-name-that-is-longer-than-a-label-may-be-2",
}

// labelsOf returns the labels of contexts with these names.
func labelsOf(t *testing.T, a *api, names []string) map[string]string {
	s := newStage(t, a, &clientcmdapi.AuthInfo{}, func(s *stage) {
		s.config.Contexts = []string{cluster.AllContexts}
		delete(s.file.Contexts, "main")
		for _, name := range names {
			s.add(name, a, &clientcmdapi.AuthInfo{Token: "token of " + name})
		}
	})
	out := map[string]string{}
	for _, c := range s.clusters.Contexts() {
		out[c.Name] = c.Label
		if by, err := s.clusters.ByLabel(c.Label); err != nil || by.Name != c.Name {
			t.Errorf("ByLabel(%q): %v, %v, want %q", c.Label, by, err, c.Name)
		}
	}
	return out
}

func TestLabels(t *testing.T) {
	a := newAPI(t)
	got := labelsOf(t, a, odd)
	want := map[string]string{
		"a/b": "a-b-c14cdd", "a:b": "a-b-6783a3", "a@b": "a-b-7508d8", "a b": "a-b-c8687a", "-": "context-3973e0",
		"..": "context-5ec1f7", "🙂": "context-d06f15", "Ärger": "rger", "prod": "prod", "Prod": "prod-5f5635",
		"user@Host.example:6443": "user-host-example-6443", "xn--bcher-kva": "x-xn--bcher-kva", "svc": "context-svc",
		odd[len(odd)-2]: "arn-aws-eks-us-east-1-123456789012-cluster-a-cluster-wit-5e8b31",
		odd[len(odd)-1]: "arn-aws-eks-us-east-1-123456789012-cluster-a-cluster-wit-358bc2",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got)\n%s", d)
	}
	if d := cmp.Diff(got, labelsOf(t, a, odd)); d != "" {
		t.Errorf("another run gives other labels:\n%s", d)
	}
}

// TestContexts asks for contexts by name. Each request gets the credential of its own.
func TestContexts(t *testing.T) {
	a := newAPI(t)
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "main"}, func(s *stage) {
		s.config.Contexts = []string{cluster.AllContexts}
		for _, name := range odd {
			s.add(name, a, &clientcmdapi.AuthInfo{Token: fmt.Sprintf("%x", name)})
		}
	})
	for _, name := range odd {
		answer(t, s.get(name), get("/"))
		if r, _ := a.last(); bearer(r) != fmt.Sprintf("%x", name) {
			t.Errorf("%q: the request had the token %q", name, bearer(r))
		}
	}
	answer(t, s.get(""), get("/"))
	if r, _ := a.last(); bearer(r) != "main" {
		t.Errorf("the current context: the request had the token %q", bearer(r))
	}
	for _, c := range s.clusters.Contexts() {
		if c.Current != (c.Name == "main") {
			t.Errorf("context %q: current is %v", c.Name, c.Current)
		}
	}
}

// TestContextsList serves some of the contexts; one of the list does not exist, and one is broken.
func TestContextsList(t *testing.T) {
	a := newAPI(t)
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "main"}, func(s *stage) {
		s.config.Contexts = []string{"good", "broken", "typo"}
		s.add("good", a, &clientcmdapi.AuthInfo{Token: "good"})
		s.add("broken", a, &clientcmdapi.AuthInfo{TokenFile: "/does/not/exist"})
		for i := range 20 {
			s.add(fmt.Sprint("other", i), a, &clientcmdapi.AuthInfo{})
		}
	})
	if got := answer(t, s.get("good"), get("/x")); got != "200 HTTP/1.1 GET /x" {
		t.Error(got)
	}
	for name, want := range map[string]string{
		"other1": `context "other1" is not served here; contexts that are: "broken", "good"`,
		"typo":   `context "typo" is not served here`,
	} {
		if _, err := s.clusters.Get(name); !apierrors.IsNotFound(err) || !strings.Contains(err.Error(), want) {
			t.Errorf("Get(%q): %v, want NotFound: %s", name, err, want)
		}
	}
	_, err := s.clusters.Get("broken")
	if err == nil || apierrors.IsNotFound(err) || !errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), `context "broken"`) {
		t.Errorf("the broken context: %v", err)
	}
	err = s.clusters.Check()
	if err == nil || !strings.Contains(err.Error(), `context "typo" does not exist; the kubeconfig has "broken", "good", "main", "other0"`) ||
		!strings.Contains(err.Error(), "and 13 more") {
		t.Errorf("Check: %v", err)
	}
}

// TestNothingToServe has kubeconfigs that cannot be used at all.
func TestNothingToServe(t *testing.T) {
	tests := map[string]struct {
		change func(*stage)
		want   string
	}{
		"no file":         {func(s *stage) { s.path += "/nowhere" }, "read the kubeconfig"},
		"no YAML":         {func(s *stage) { put(s.t, s.path, "{[") }, "read the kubeconfig"},
		"no such context": {func(s *stage) { s.file.CurrentContext = "other"; s.save() }, `current context: read the kubeconfig`},
		"bad authority":   {func(s *stage) { s.file.Clusters["main"].CertificateAuthorityData = []byte("x"); s.save() }, "build the transport"},
		"bad proxy-url":   {func(s *stage) { s.file.Clusters["main"].ProxyURL = "ftp://x"; s.save() }, "ftp"},
	}
	for name, tt := range tests {
		t.Run(name, func(t *testing.T) {
			s := newStage(t, newAPI(t), &clientcmdapi.AuthInfo{Token: "t"})
			tt.change(s)
			if err := s.clusters.Check(); err == nil || !strings.Contains(err.Error(), tt.want) {
				t.Errorf("Check: %v, want %s", err, tt.want)
			}
			if _, err := s.clusters.Get(""); err == nil {
				t.Error("Get succeeds")
			}
		})
	}
}

// TestServerPath has an API server below a path, as Rancher's are.
func TestServerPath(t *testing.T) {
	a := newAPI(t)
	tests := []struct {
		server, asked string
		off           bool
		want          string
	}{
		{"/k8s/clusters/c-1", "/api/v1", false, "/k8s/clusters/c-1/api/v1"},
		{"/k8s/clusters/c-1/", "/api/v1", false, "/k8s/clusters/c-1/api/v1"},
		{"/k8s/clusters/c-1", "/api/v1", true, "/api/v1"},
		{"/", "/api/v1", false, "/api/v1"},
		{"/a%2Fb", "/api/x%2Fy//z/../w", false, "/a%2Fb/api/x%2Fy//z/../w"},
	}
	for _, tt := range tests {
		s := newStage(t, a, &clientcmdapi.AuthInfo{}, func(s *stage) {
			s.file.Clusters["main"].Server += tt.server
			s.config.ServerPath = !tt.off
		})
		if got, want := answer(t, s.get(""), get(tt.asked)), "200 HTTP/1.1 GET "+tt.want; got != want {
			t.Errorf("server %s, path %s: %s, want %s", tt.server, tt.asked, got, want)
		}
	}
}

// TestPlainServer has an API server without TLS, which gets no credential: client-go sends none in the clear.
func TestPlainServer(t *testing.T) {
	a := newAPI(t)
	s := newStage(t, a, &clientcmdapi.AuthInfo{Token: "secret"}, func(s *stage) {
		s.file.Clusters["main"] = &clientcmdapi.Cluster{Server: plain(t, a)}
	})
	for _, long := range []bool{false, true} {
		resp, err := ask(t, s.get(""), get("/x"), long)
		if err != nil || resp.StatusCode != http.StatusOK {
			t.Fatal(resp, err)
		}
		resp.Body.Close()
	}
	if got := echo(t, s.get(""))("hello"); got != "echo hello" {
		t.Error(got)
	}
	for _, r := range a.requests() {
		if r.Header.Get("Authorization") != "" {
			t.Errorf("a request had the credential %q", r.Header.Get("Authorization"))
		}
	}
}

// inPod is what clientcmd finds in a pod without a kubeconfig.
type inPod struct{ config *rest.Config }

func (p inPod) RawConfig() (clientcmdapi.Config, error) { return *clientcmdapi.NewConfig(), nil }
func (p inPod) Namespace() (string, bool, error)        { return "default", false, nil }
func (p inPod) ConfigAccess() clientcmd.ConfigAccess    { return nil }
func (p inPod) ClientConfig() (*rest.Config, error)     { return p.config, nil }

// TestInPod uses the token of a service account, which kubelet replaces in its file.
func TestInPod(t *testing.T) {
	a := newAPI(t)
	s := newStage(t, a, &clientcmdapi.AuthInfo{})
	path := filepath.Join(s.dir, "token")
	put(t, path, "one")
	s.config.Load = func(string) clientcmd.ClientConfig {
		return inPod{config: &rest.Config{Host: a.URL, BearerToken: "one", BearerTokenFile: path,
			TLSClientConfig: rest.TLSClientConfig{CAData: a.authority()}}}
	}
	s.clusters = cluster.New(s.config)
	if err := s.clusters.Check(); err != nil || s.clusters.Current() != "" || s.clusters.Contexts() != nil {
		t.Fatalf("Check: %v; the current context is %q", err, s.clusters.Current())
	}
	a.accept("one")
	everyLane(t, s)
	put(t, path, "two")
	a.accept("two")
	everyLane(t, s)
}
