package main_test

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"

	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/echo"
)

// talker makes a pod that says each line of its input on both of its outputs.
func (l *lab) talker(t *testing.T) {
	t.Helper()
	pods, none := l.client.CoreV1().Pods(metav1.NamespaceDefault), int64(0)
	_, err := pods.Create(t.Context(), &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: "talker"},
		Spec: corev1.PodSpec{TerminationGracePeriodSeconds: &none, Containers: []corev1.Container{{
			Name: "main", Image: "lab/echo", Stdin: true,
			Command: []string{"sh", "-c", "while read -r x; do echo out $x; echo err $x >&2; done"},
		}}},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = pods.Delete(context.Background(), "talker", metav1.DeleteOptions{}) })
	l.wait(t, "pod talker to run", func() (string, bool) {
		p, err := pods.Get(t.Context(), "talker", metav1.GetOptions{})
		return fmt.Sprint(p.Status.ContainerStatuses, err), err == nil && p.Status.Phase == corev1.PodRunning
	})
}

// directStreams opens the same streams at the API server, which tells whose fault a failure is.
func (l *lab) directStreams(t *testing.T) {
	conf, err := l.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	l.streams(t, conf)
}

// protocols are the ways in which a stream of commands can be opened.
func protocols() map[string]func(*rest.Config, *url.URL) (remotecommand.Executor, error) {
	return map[string]func(*rest.Config, *url.URL) (remotecommand.Executor, error){
		"WebSocket": func(conf *rest.Config, at *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewWebSocketExecutorForProtocols(conf, http.MethodGet, at.String(), "v5.channel.k8s.io")
		},
		"SPDY": func(conf *rest.Config, at *url.URL) (remotecommand.Executor, error) {
			return remotecommand.NewSPDYExecutor(conf, http.MethodPost, at)
		},
	}
}

// streams runs commands, attaches and forwards ports, each by WebSocket and by SPDY.
func (l *lab) streams(t *testing.T, conf *rest.Config) {
	for name, open := range protocols() {
		t.Run("exec by "+name, func(t *testing.T) { l.exec(t, conf, open) })
		t.Run("attach by "+name, func(t *testing.T) { l.attach(t, conf, open) })
	}
	at := l.subresource(t, conf, l.echoPod(t).Name, "portforward", &corev1.PodPortForwardOptions{})
	t.Run("port-forward by WebSocket", func(t *testing.T) {
		dialer, err := portforward.NewSPDYOverWebsocketDialer(at, conf)
		if err != nil {
			t.Fatal(err)
		}
		l.forward(t, func(out io.Writer, ready chan struct{}, stop <-chan struct{}) (*portforward.PortForwarder, error) {
			return portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:8080"}, stop, ready, out, out)
		})
	})
	t.Run("port-forward by SPDY", func(t *testing.T) {
		transport, upgrader, err := spdy.RoundTripperFor(conf)
		if err != nil {
			t.Fatal(err)
		}
		dialer := spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, at)
		l.forward(t, func(out io.Writer, ready chan struct{}, stop <-chan struct{}) (*portforward.PortForwarder, error) {
			return portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{"0:8080"}, stop, ready, out, out)
		})
	})
}

// subresource is the URL of a stream of a pod, with its options.
func (l *lab) subresource(t *testing.T, conf *rest.Config, pod, name string, options any) *url.URL {
	t.Helper()
	client, err := kubernetes.NewForConfig(conf)
	if err != nil {
		t.Fatal(err)
	}
	req := client.CoreV1().RESTClient().Post().Namespace(metav1.NamespaceDefault).Resource("pods").Name(pod).SubResource(name)
	switch o := options.(type) {
	case *corev1.PodExecOptions:
		req.VersionedParams(o, scheme.ParameterCodec)
	case *corev1.PodAttachOptions:
		req.VersionedParams(o, scheme.ParameterCodec)
	}
	return req.URL()
}

func (l *lab) echoPod(t *testing.T) *corev1.Pod {
	t.Helper()
	pods, err := l.client.CoreV1().Pods(metav1.NamespaceDefault).List(t.Context(), metav1.ListOptions{LabelSelector: "app=echo"})
	if err != nil || len(pods.Items) == 0 {
		t.Fatalf("find a pod of the test server: %d, %v", len(pods.Items), err)
	}
	return &pods.Items[0]
}

type opener func(*rest.Config, *url.URL) (remotecommand.Executor, error)

// exec runs a command with an input that ends, two outputs and an exit code.
func (l *lab) exec(t *testing.T, conf *rest.Config, open opener) {
	options := &corev1.PodExecOptions{Stdin: true, Stdout: true, Stderr: true, Command: []string{"sh", "-c", "cat; echo done >&2; exit 3"}}
	e, err := open(conf, l.subresource(t, conf, "talker", "exec", options))
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("a line of input\n", 20_000)
	var out, errs bytes.Buffer
	err = e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: strings.NewReader(long), Stdout: &out, Stderr: &errs})
	var exit utilexec.CodeExitError
	if !errors.As(err, &exit) || exit.Code != 3 {
		t.Errorf("error %v, want exit code 3", err)
	}
	if out.String() != long || errs.String() != "done\n" {
		t.Errorf("got %d bytes, want %d; and %q", out.Len(), len(long), &errs)
	}
}

// attach talks with the pod, whose log is followed meanwhile.
func (l *lab) attach(t *testing.T, conf *rest.Config, open opener) {
	e, err := open(conf, l.subresource(t, conf, "talker", "attach", &corev1.PodAttachOptions{Stdin: true, Stdout: true, Stderr: true}))
	if err != nil {
		t.Fatal(err)
	}
	client, err := kubernetes.NewForConfig(conf)
	if err != nil {
		t.Fatal(err)
	}
	log, err := client.CoreV1().Pods(metav1.NamespaceDefault).GetLogs("talker", &corev1.PodLogOptions{Follow: true}).Stream(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	var out, errs, logged nettest.Journal
	go func() { _, _ = io.Copy(&logged, log) }()
	ctx, cancel := context.WithCancel(t.Context())
	in, say := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- e.StreamWithContext(ctx, remotecommand.StreamOptions{Stdin: in, Stdout: &out, Stderr: &errs})
	}()
	text := t.Name() + " says it"
	fmt.Fprintln(say, text)
	l.hear(t, &out, "out "+text)
	l.hear(t, &errs, "err "+text)
	l.hear(t, &logged, "out "+text)
	cancel()
	if err := <-ended; !errors.Is(err, context.Canceled) {
		t.Errorf("attach ended with %v", err)
	}
	say.Close()
}

// forward sends requests by a forwarded port, several at a time.
func (l *lab) forward(t *testing.T, start func(out io.Writer, ready chan struct{}, stop <-chan struct{}) (*portforward.PortForwarder, error)) {
	ready, stop, out := make(chan struct{}), make(chan struct{}), &nettest.Journal{}
	f, err := start(out, ready, stop)
	if err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- f.ForwardPorts() }()
	select {
	case <-ready:
	case err := <-ended:
		t.Fatalf("forward: %v", err)
	}
	defer func() {
		close(stop)
		if err := <-ended; err != nil {
			t.Errorf("forward: %v", err)
		}
	}()
	ports, err := f.GetPorts()
	if err != nil {
		t.Fatal(err)
	}
	results := make(chan error, 5)
	for range cap(results) {
		go func() {
			resp, err := http.Get(fmt.Sprintf("http://127.0.0.1:%d/bytes?n=300000", ports[0].Local))
			if err == nil {
				defer resp.Body.Close()
				var n int64
				if n, err = io.Copy(io.Discard, resp.Body); n != 300000 && err == nil {
					err = fmt.Errorf("got %d bytes", n)
				}
			}
			results <- err
		}()
	}
	for range cap(results) {
		if err := <-results; err != nil {
			t.Errorf("%v\n%s", err, out)
		}
	}
}

// drain ends a proxy while a command runs and a watch waits: the one may end its work, the other ends properly at once.
func (g *gateway) drain(t *testing.T) {
	conf := g.config()
	options := &corev1.PodExecOptions{Stdin: true, Stdout: true, Command: []string{"sh", "-c", "echo begun; read -r x; echo got $x"}}
	e, err := protocols()["WebSocket"](conf, g.subresource(t, conf, "talker", "exec", options))
	if err != nil {
		t.Fatal(err)
	}
	watching := do(t, http.DefaultClient, g.request(t, http.MethodGet, "/api/v1/namespaces?watch=true"))
	var out nettest.Journal
	in, say := io.Pipe()
	ended := make(chan error, 1)
	go func() {
		ended <- e.StreamWithContext(t.Context(), remotecommand.StreamOptions{Stdin: in, Stdout: &out})
	}()
	g.hear(t, &out, "begun")
	if err := g.process.Process.Signal(unix.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(io.Discard, watching.Body); err != nil {
		t.Errorf("the watch was cut: %v", err)
	}
	fmt.Fprintln(say, "bye")
	g.hear(t, &out, "got bye")
	if err := <-ended; err != nil {
		t.Errorf("the command was cut: %v", err)
	}
	begin := time.Now()
	g.wait(t)
	if took := time.Since(begin); took > 5*time.Second {
		t.Errorf("the proxy took %s to end", took)
	}
}

// watchByWebSocket reads events as messages. Only a page of the proxy's own origin may; the API server wants an origin.
func (g *gateway) watchByWebSocket(t *testing.T) {
	at := "ws://" + g.at + "/api/v1/namespaces/default/pods?watch=true"
	c, resp, err := websocket.DefaultDialer.DialContext(t.Context(), at, http.Header{"Origin": {"http://" + g.at}})
	if err != nil {
		t.Fatalf("%v: %+v", err, resp)
	}
	defer c.Close()
	_, text, err := c.ReadMessage()
	var event struct {
		Type   string
		Object corev1.Pod
	}
	if err != nil || json.Unmarshal(text, &event) != nil || event.Type != "ADDED" || event.Object.Name == "" {
		t.Errorf("message %q, %v; want a pod", text, err)
	}
	for _, origin := range []string{"http://evil.test", "null", "http://80.echo.default.svc." + g.localhost()} {
		_, resp, err := websocket.DefaultDialer.DialContext(t.Context(), at, http.Header{"Origin": {origin}})
		if err == nil {
			t.Errorf("a page of %s may watch", origin)
			continue
		}
		if resp == nil {
			t.Fatal(err)
		}
		if resp.StatusCode != http.StatusForbidden {
			t.Errorf("a page of %s: status %d, want 403", origin, resp.StatusCode)
		}
	}
}

// localhost is the proxy's address by that name.
func (g *gateway) localhost() string { return "localhost" + g.at[strings.LastIndexByte(g.at, ':'):] }

// ask asks an app by its own origin; the name is not resolved but sent.
func (g *gateway) ask(t *testing.T, c *http.Client, origin, path string, header http.Header) (reply echo.Reply) {
	t.Helper()
	req := g.request(t, http.MethodGet, path)
	req.Host = origin + "." + g.localhost()
	for k, v := range header {
		req.Header[k] = v
	}
	resp := do(t, c, req)
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(text, &reply); err != nil || resp.StatusCode != http.StatusOK {
		t.Fatalf("%s%s: answer %d %q", origin, path, resp.StatusCode, text)
	}
	return reply
}

// services asks apps by their own origins: what they get is what the client sent.
func (g *gateway) services(t *testing.T) {
	path, login := "/a%2Fb//c/../d?x=1;y", http.Header{"Authorization": {"Bearer of the app"}, "Cookie": {"a=b"}}
	got := g.ask(t, http.DefaultClient, "80.echo.default.svc", path, login)
	if got.Path != path || got.Host != "80.echo.default.svc."+g.localhost() || got.Headers.Get("Authorization") != "Bearer of the app" ||
		got.Headers.Get("Cookie") != "a=b" || !strings.HasPrefix(got.Client, "127.0.0.1:") {
		t.Errorf("the app saw %+v", got)
	}
	pod := g.echoPod(t).Name
	if got := g.ask(t, http.DefaultClient, "http.echo.default.svc", "/", nil); got.Pod == "" {
		t.Errorf("by the port's name: %+v", got)
	}
	if got := g.ask(t, http.DefaultClient, "8080."+pod+".default.pod", "/", nil); got.Pod != pod {
		t.Errorf("pod %s answers, want %s", got.Pod, pod)
	}
	if got := g.ask(t, http.DefaultClient, "8443."+pod+".default.pod", "/", nil); got.Proto != "HTTP/2.0" {
		t.Errorf("over TLS the app speaks %s", got.Proto)
	}
	h2 := &http.Transport{Protocols: new(http.Protocols)}
	h2.Protocols.SetUnencryptedHTTP2(true)
	defer h2.CloseIdleConnections()
	got = g.ask(t, &http.Client{Transport: h2}, "8081."+pod+".default.pod", "/", http.Header{"Content-Type": {"application/grpc"}, "Te": {"trailers"}})
	if got.Proto != "HTTP/2.0" || got.Headers.Get("Te") != "trailers" {
		t.Errorf("a gRPC server would see %+v", got)
	}
	g.webSocketOf(t, "80.echo.default.svc")
	req := g.request(t, http.MethodGet, "/")
	req.Host = "80.nothing.default.svc." + g.localhost()
	wantStatus(t, do(t, http.DefaultClient, req), http.StatusNotFound)
}

// webSocketOf sends a message to an app and wants it back; a page of another app may not.
func (g *gateway) webSocketOf(t *testing.T, origin string) {
	t.Helper()
	own := "http://" + origin + "." + g.localhost()
	header := http.Header{"Host": {origin + "." + g.localhost()}, "Origin": {own}}
	c, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+g.at+"/ws", header)
	if err != nil {
		t.Fatalf("%v: %+v", err, resp)
	}
	defer c.Close()
	if _, _, err := c.ReadMessage(); err != nil { // who answers
		t.Fatal(err)
	}
	if err := c.WriteMessage(websocket.TextMessage, []byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, text, err := c.ReadMessage(); err != nil || string(text) != "hello" {
		t.Errorf("got %q, %v", text, err)
	}
	header.Set("Origin", "http://80.sticky.default.svc."+g.localhost())
	if _, resp, err := websocket.DefaultDialer.DialContext(t.Context(), "ws://"+g.at+"/ws", header); err == nil || resp == nil || resp.StatusCode != http.StatusForbidden {
		t.Errorf("another Service's page: %+v, %v", resp, err)
	}
}

// servicesThroughAPI asks a Service with the rights of a user who may not forward ports.
func (l *lab) servicesThroughAPI(t *testing.T) {
	const name = "proxy-visitor"
	roles, bindings := l.client.RbacV1().ClusterRoles(), l.client.RbacV1().ClusterRoleBindings()
	_, err := roles.Create(t.Context(), &rbacv1.ClusterRole{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules: []rbacv1.PolicyRule{
			{APIGroups: []string{""}, Resources: []string{"services", "services/proxy"}, Verbs: []string{"get", "list", "create"}},
			{APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list"}},
		},
	}, metav1.CreateOptions{})
	if err == nil {
		_, err = bindings.Create(t.Context(), &rbacv1.ClusterRoleBinding{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "ClusterRole", Name: name},
			Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
		}, metav1.CreateOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = roles.Delete(context.Background(), name, metav1.DeleteOptions{})
		_ = bindings.Delete(context.Background(), name, metav1.DeleteOptions{})
	})
	g := l.start(t, []string{"--kubeconfig=" + l.writeKubeconfig(t, name), "--port=0"})
	got := g.ask(t, http.DefaultClient, "80.echo.default.svc", "/hello?x=1", nil)
	if !strings.Contains(got.Headers.Get("X-Forwarded-Uri"), "/services/") || got.Path != "/hello?x=1" {
		t.Errorf("the app saw %+v, want a request through the API server", got)
	}
	if _, err := g.clientset(t).CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("error %v, want the API server's refusal", err)
	}
}
