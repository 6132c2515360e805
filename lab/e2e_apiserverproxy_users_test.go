package main_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"varco.dev/internal/nettest"
)

type netConn = net.Conn

func (p *apiProxies) front() way { return p.ways[1] }

// forwarded is the URL of a way for programs of this machine.
func (p *apiProxies) forwarded(t *testing.T, w way) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	var serving sync.WaitGroup
	t.Cleanup(func() {
		cancel()
		l.Close()
		serving.Wait()
	})
	carry := func(here net.Conn) {
		defer here.Close()
		there, err := p.client.DialContext(ctx, "tcp", strings.TrimPrefix(w.url, "https://"))
		if err != nil {
			return
		}
		defer there.Close()
		defer context.AfterFunc(ctx, func() { here.Close(); there.Close() })()
		serving.Go(func() {
			_, _ = io.Copy(there, here)
			_ = there.(*net.TCPConn).CloseWrite()
		})
		_, _ = io.Copy(here, there)
	}
	serving.Go(func() {
		for {
			here, err := l.Accept()
			if err != nil {
				return
			}
			serving.Go(func() { carry(here) })
		}
	})
	return "https://" + l.Addr().String()
}

// account makes a service account of namespace default, with roles that hold these rules, and returns its token.
func (p *apiProxies) account(t *testing.T, name string, rules ...rbacv1.PolicyRule) (token string) {
	t.Helper()
	client, ctx := p.lab.client, t.Context()
	meta := metav1.ObjectMeta{Name: name}
	_, err := client.CoreV1().ServiceAccounts(metav1.NamespaceDefault).Create(ctx, &corev1.ServiceAccount{ObjectMeta: meta}, metav1.CreateOptions{})
	if err == nil {
		_, err = client.RbacV1().ClusterRoles().Create(ctx, &rbacv1.ClusterRole{ObjectMeta: meta, Rules: rules}, metav1.CreateOptions{})
	}
	if err == nil {
		_, err = client.RbacV1().ClusterRoleBindings().Create(ctx, &rbacv1.ClusterRoleBinding{
			ObjectMeta: meta,
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects:   []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: metav1.NamespaceDefault, Name: name}},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	return p.token(t, metav1.NamespaceDefault, name)
}

func (p *apiProxies) grantAll(t *testing.T, name string) {
	t.Helper()
	p.account(t, name, rbacv1.PolicyRule{APIGroups: []string{"*"}, Resources: []string{"*"}, Verbs: []string{"*"}})
}

// permissions asks as users who may little: the name in a role is the whole ID, and the verb that of the method.
func (p *apiProxies) permissions(t *testing.T) {
	rule := func(group string) rbacv1.PolicyRule {
		return rbacv1.PolicyRule{APIGroups: []string{group}, Resources: []string{"services/proxy"}, Verbs: []string{"get"},
			ResourceNames: []string{"https:web:https"}}
	}
	const aggregatedGroup = "proxy.varco.dev"
	users := map[string]string{
		"visitor":  p.account(t, "visitor", rule("")),
		"outsider": p.account(t, "outsider", rule(aggregatedGroup)),
		"insider":  p.account(t, "insider", rule(""), rule(aggregatedGroup)),
	}
	for name, token := range users {
		auth := map[string]string{"Authorization": "Bearer " + token}
		c := p.httpClient(t)
		c.Transport.(*http.Transport).TLSClientConfig.Certificates = nil
		p.wait(t, "the role of "+name, func() (string, bool) { // authorizers learn of roles by watches, each at its own pace
			for _, w := range append([]way{p.original}, p.ways...) {
				want := http.StatusForbidden
				if name == "insider" || name == "visitor" && w.base == coreBase {
					want = http.StatusOK
				}
				if a := send(c, request{path: services + "https:web:https/proxy/x", header: auth}.build(t, w)); a.status != want {
					return fmt.Sprintf("%s: status %d, want %d", w.name, a.status, want), false
				}
			}
			return "", true
		})
		for _, r := range []request{
			{path: services + "https:web:https/proxy/x"}, {method: "HEAD", path: services + "https:web:https/proxy/x"},
			{path: services + "web:https/proxy/x"}, {path: services + "https:web:443/proxy/x"}, {path: services + "web/proxy/"},
			{method: "POST", path: services + "https:web:https/proxy/x"}, {method: "OPTIONS", path: services + "https:web:https/proxy/x"},
			{path: pods + "bare/proxy/"}, {path: "nodes/node-1/proxy/pods"},
		} {
			r.header = auth
			original := send(c, r.build(t, p.original))
			for _, w := range p.ways {
				if w.base == aggregatedBase {
					continue // the group is in the words of its refusals
				}
				row{request: r}.compare(t, w, original, send(c, r.build(t, w)))
			}
		}
	}
}

// identities asks who one is, in front of the API server and without that.
func (p *apiProxies) identities(t *testing.T) {
	token := p.account(t, "somebody", rbacv1.PolicyRule{APIGroups: []string{""}, Resources: []string{"users"}, Verbs: []string{"impersonate"}})
	direct, front := p.admin, p.configOf(t, p.front())
	whoAmI := func(t *testing.T, conf *rest.Config) string {
		t.Helper()
		r, err := clientset(t, conf).AuthenticationV1().SelfSubjectReviews().Create(t.Context(), &authenticationv1.SelfSubjectReview{}, metav1.CreateOptions{})
		if err != nil {
			if apierrors.IsForbidden(err) || apierrors.IsUnauthorized(err) {
				return err.Error()
			}
			t.Fatal(err)
		}
		extra := r.Status.UserInfo.Extra
		delete(extra, "authentication.kubernetes.io/credential-id") // that of a certificate's holder is known where the certificate is seen
		return fmt.Sprint(r.Status.UserInfo.Username, r.Status.UserInfo.Groups, extra)
	}
	for name, change := range map[string]func(*rest.Config) *rest.Config{
		"certificate": func(c *rest.Config) *rest.Config { return c },
		"token":       func(c *rest.Config) *rest.Config { return as(c, token) },
		"wrong token": func(c *rest.Config) *rest.Config { return as(c, "wrong") },
		"nobody":      func(c *rest.Config) *rest.Config { return as(c, "") },
		"impersonated": func(c *rest.Config) *rest.Config {
			c = rest.CopyConfig(c)
			c.Impersonate = rest.ImpersonationConfig{UserName: "jane", Groups: []string{"a", "b"}, Extra: map[string][]string{"Some/Thing": {"x"}}}
			return c
		},
		"impersonated by a token": func(c *rest.Config) *rest.Config {
			c = as(c, token)
			c.Impersonate = rest.ImpersonationConfig{UserName: "jane"}
			return c
		},
		"impersonated without permission": func(c *rest.Config) *rest.Config {
			c = as(c, token)
			c.Impersonate = rest.ImpersonationConfig{UserName: "jane", Groups: []string{"system:masters"}}
			return c
		},
		"spoofed": func(c *rest.Config) *rest.Config {
			c = as(c, token)
			c.Wrap(func(next http.RoundTripper) http.RoundTripper {
				return roundTripper(func(r *http.Request) (*http.Response, error) {
					r = r.Clone(r.Context())
					r.Header["X-Remote-User"], r.Header["x-remote-group"] = []string{"root"}, []string{"system:masters"}
					r.Header.Set("X-Remote-Extra-Scopes", "all")
					return next.RoundTrip(r)
				})
			})
			return c
		},
	} {
		t.Run(name, func(t *testing.T) {
			if want, got := whoAmI(t, change(direct)), whoAmI(t, change(front)); got != want {
				t.Errorf("in front: %s\nwithout:  %s", got, want)
			}
		})
	}
}

type roundTripper func(*http.Request) (*http.Response, error)

func (f roundTripper) RoundTrip(r *http.Request) (*http.Response, error) { return f(r) }

// kubectlThroughFront uses the real kubectl.
func (p *apiProxies) kubectlThroughFront(t *testing.T) {
	p.talker(t)
	conf := rest.CopyConfig(p.admin)
	conf.Host = p.forwarded(t, p.front())
	kubeconfig, dir := writeKubeconfig(t, conf), t.TempDir()
	command := func(ctx context.Context, args ...string) *exec.Cmd {
		cmd := exec.CommandContext(ctx, p.kubectl, append([]string{"--kubeconfig=" + kubeconfig}, args...)...)
		cmd.Env, cmd.Dir = append(os.Environ(), "HOME="+dir), dir
		return cmd
	}
	run := func(want string, in string, args ...string) {
		t.Helper()
		cmd := command(t.Context(), args...)
		cmd.Stdin = strings.NewReader(in)
		if out, err := cmd.CombinedOutput(); err != nil || !strings.Contains(string(out), want) {
			t.Errorf("kubectl %s: %v, %q; want %q", strings.Join(args, " "), err, out, want)
		}
	}
	// begin starts what goes on, and wants what it prints.
	begin := func(want string, in io.Reader, args ...string) (wait func() string) {
		t.Helper()
		ctx, cancel := context.WithCancel(t.Context())
		cmd, out := command(ctx, args...), &nettest.Journal{}
		cmd.Stdin, cmd.Stdout, cmd.Stderr = in, out, out
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { cancel(); _ = cmd.Wait() }) // it is killed if it has not ended
		return func() string { t.Helper(); p.hear(t, out, want); return out.String() }
	}
	pod := p.echoPod(t).Name
	watched := begin("configmap/kept", nil, "get", "configmaps", "--watch", "-o", "name")
	run("porter", "", "get", "pods", "-o", "wide")
	run("validatingadmissionpolicies", "", "api-resources")
	run("configmap/kept created", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: b}\n", "apply", "-f", "-")
	run("serverside-applied", "apiVersion: v1\nkind: ConfigMap\nmetadata: {name: kept}\ndata: {a: c}\n", "apply", "--server-side", "--force-conflicts", "-f", "-")
	watched()
	run("yes", "", "auth", "can-i", "delete", "nodes")
	run("kubernetes-admin", "", "auth", "whoami")
	run("said: hello", "hello", "exec", "-i", pod, "--", "sh", "-c", "echo said: $(cat)")
	run(`"path": "/x"`, "", "get", "--raw", coreBase+"/"+services+"plain/proxy/x")
	say, in := attach(t, begin, "talker")
	defer in.Close()
	fmt.Fprintln(in, "hello")
	say()
	begin("out hello", nil, "logs", "-f", "talker")()
	forward := begin("Forwarding from 127.0.0.1:", nil, "port-forward", "pod/"+pod, ":8080")()
	_, port, _ := strings.Cut(forward, "127.0.0.1:")
	port, _, _ = strings.Cut(port, " ")
	c := &http.Client{Timeout: 5 * time.Second}
	resp, err := c.Get("http://127.0.0.1:" + port + "/healthz")
	if err != nil {
		t.Fatal(err)
	}
	resp.Body.Close()
	want := bytes.Repeat([]byte("0123456789"), 100_000)
	if err := os.WriteFile(filepath.Join(dir, "there"), want, 0o600); err != nil {
		t.Fatal(err)
	}
	run("", "", "cp", "there", pod+":/tmp/there")
	run("", "", "cp", pod+":/tmp/there", "back")
	if got, err := os.ReadFile(filepath.Join(dir, "back")); err != nil || !bytes.Equal(got, want) {
		t.Errorf("copied %d bytes, %v; want %d", len(got), err, len(want))
	}
	run("configmap \"kept\" deleted", "", "delete", "configmap", "kept")
}

// attach attaches to a pod, whose input is then in.
func attach(t *testing.T, begin func(string, io.Reader, ...string) func() string, pod string) (heard func() string, in io.WriteCloser) {
	r, in, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	heard = begin("out hello", r, "attach", "-i", pod)
	return heard, in
}
