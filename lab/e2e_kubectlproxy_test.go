package main_test

import (
	"bufio"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"

	"varco.dev/internal/nettest"
)

// gateway is a varco kubectl-proxy that runs where a user would run it: on the host, outside the cluster.
type gateway struct {
	*lab
	at      string // host:port, or the path of a socket
	process *exec.Cmd
	ended   chan error
	log     *bytes.Buffer // may be read once it has ended
}

// startsAt is how the line begins that says where a proxy serves.
const startsAt = "Starting to serve on "

// kubectlProxy uses varco kubectl-proxy as users and their programs do, with the lab's API server behind it.
func (l *lab) kubectlProxy(t *testing.T) {
	open := l.gateway(t, "--allow=exec,attach,portforward")
	usual := l.gateway(t)
	l.talker(t)
	for _, s := range []struct {
		name string
		test func(*testing.T)
	}{
		{"client", usual.client},
		{"large answers", usual.largeAnswers},
		{"streams", func(t *testing.T) { open.streams(t, open.config()) }},
		{"streams without a proxy", l.directStreams},
		{"streams to the end", open.drain},
		{"watch by WebSocket", usual.watchByWebSocket},
		{"refused by default", usual.refusals},
		{"read-only", l.readOnly},
		{"Services by name", usual.services},
		{"Services without portforward", l.servicesThroughAPI},
		{"contexts", l.contexts},
		{"socket", l.socket},
	} {
		t.Run(s.name, s.test)
	}
}

// writeKubeconfig writes the administrator's kubeconfig; impersonate may name another user for it.
func (l *lab) writeKubeconfig(t *testing.T, impersonate string) string {
	t.Helper()
	text, err := l.Kubeconfig()
	if err != nil {
		t.Fatal(err)
	}
	conf, err := clientcmd.Load(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, user := range conf.AuthInfos {
		user.Impersonate = impersonate
	}
	path := filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*conf, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// gateway starts a proxy, with the administrator's kubeconfig and a free port, for the time of the test.
func (l *lab) gateway(t *testing.T, flags ...string) *gateway {
	t.Helper()
	return l.start(t, append([]string{"--kubeconfig=" + l.writeKubeconfig(t, ""), "--port=0"}, flags...))
}

func (l *lab) start(t *testing.T, flags []string) *gateway {
	t.Helper()
	g := &gateway{lab: l, ended: make(chan error, 1), log: &bytes.Buffer{}}
	g.process = exec.Command(l.varco, append([]string{"kubectl-proxy"}, flags...)...)
	g.process.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is out of time cleans nothing up
	out, theirs := io.Pipe()
	g.process.Stdout, g.process.Stderr = theirs, g.log
	started := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // the death of the parent is that of this thread
		err := g.process.Start()
		started <- err
		if err == nil {
			g.ended <- g.process.Wait()
		}
		theirs.Close()
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { g.end(t) })
	line, err := bufio.NewReader(out).ReadString('\n')
	go io.Copy(io.Discard, out)
	at, ok := strings.CutPrefix(strings.TrimSuffix(line, "\n"), startsAt)
	if err != nil || !ok {
		t.Fatalf("the proxy's first line is %q, %v", line, err)
	}
	g.at = at
	return g
}

// end asks the proxy to end, and wants that to work; once is enough.
func (g *gateway) end(t *testing.T) {
	t.Helper()
	if g.process == nil {
		return
	}
	_ = g.process.Process.Signal(unix.SIGTERM) // it may have ended
	g.wait(t)
}

func (g *gateway) wait(t *testing.T) {
	t.Helper()
	select {
	case err := <-g.ended:
		if err != nil {
			t.Errorf("varco kubectl-proxy: %v\n%s", err, g.log)
		}
	case <-time.After(patience):
		_ = g.process.Process.Kill()
		t.Errorf("varco kubectl-proxy does not end\n%v", <-g.ended)
	}
	g.process = nil
}

// config is that of a client of the proxy, which needs no credentials.
func (g *gateway) config() *rest.Config { return &rest.Config{Host: "http://" + g.at, QPS: -1} }

func (g *gateway) clientset(t *testing.T) kubernetes.Interface {
	t.Helper()
	c, err := kubernetes.NewForConfig(g.config())
	if err != nil {
		t.Fatal(err)
	}
	return c
}

func (g *gateway) client(t *testing.T) { useClient(t, g.clientset(t)) }

// useClient does what a program with client-go does.
func useClient(t *testing.T, client kubernetes.Interface) {
	t.Helper()
	ctx := t.Context()
	lists, err := client.Discovery().ServerPreferredResources()
	if err != nil || len(lists) < 10 {
		t.Errorf("discovery: %d groups, %v", len(lists), err)
	}
	pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil || len(pods.Items) < 5 {
		t.Fatalf("list: %d pods, %v", len(pods.Items), err)
	}
	maps := client.CoreV1().ConfigMaps(metav1.NamespaceDefault)
	events, err := maps.Watch(ctx, metav1.ListOptions{LabelSelector: "of=proxy"})
	if err != nil {
		t.Fatal(err)
	}
	defer events.Stop()
	_, err = maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "one", Labels: map[string]string{"of": "proxy"}}}, metav1.CreateOptions{})
	if err == nil {
		_, err = maps.Patch(ctx, "one", types.StrategicMergePatchType, []byte(`{"data":{"a":"b"}}`), metav1.PatchOptions{})
	}
	if err == nil {
		err = maps.Delete(ctx, "one", metav1.DeleteOptions{})
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted} {
		select {
		case e := <-events.ResultChan():
			if e.Type != want {
				t.Errorf("event %+v, want %s", e, want)
			}
		case <-time.After(patience):
			t.Fatalf("no event %s", want)
		}
	}
	if _, err := maps.Get(ctx, "one", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("error %v, want not found", err)
	}
}

// largeAnswers reads 2 MiB, packed and not: what a client asks for is what it gets.
func (g *gateway) largeAnswers(t *testing.T) {
	maps, part := g.clientset(t).CoreV1().ConfigMaps("kube-public"), strings.Repeat("0123456789abcdef", 44<<10)
	for i := range 3 {
		m := &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprint("large-", i)}, Data: map[string]string{"a": part}}
		if _, err := maps.Create(t.Context(), m, metav1.CreateOptions{}); err != nil {
			t.Fatal(err)
		}
		defer maps.Delete(context.Background(), m.Name, metav1.DeleteOptions{})
	}
	for _, encoding := range []string{"gzip", "identity"} {
		req := g.request(t, http.MethodGet, "/api/v1/namespaces/kube-public/configmaps")
		req.Header.Set("Accept-Encoding", encoding)
		resp := do(t, http.DefaultClient, req)
		body := io.Reader(resp.Body)
		if encoding == "gzip" {
			if resp.Header.Get("Content-Encoding") != "gzip" {
				t.Fatalf("answer is not packed: %v", resp.Header)
			}
			var err error
			if body, err = gzip.NewReader(body); err != nil {
				t.Fatal(err)
			}
		}
		var list corev1.ConfigMapList
		if err := json.NewDecoder(body).Decode(&list); err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, m := range list.Items {
			n += len(m.Data["a"])
		}
		if n != 3*len(part) {
			t.Errorf("%s: read %d bytes of data, want %d", encoding, n, 3*len(part))
		}
	}
}

func (g *gateway) request(t *testing.T, method, path string) *http.Request {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+g.at+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

// do sends a request; the answer's body is closed with the test.
func do(t *testing.T, c *http.Client, req *http.Request) *http.Response {
	t.Helper()
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp
}

// wantStatus wants an answer with a Status object, as the API server's own refusals are.
func wantStatus(t *testing.T, resp *http.Response, code int) {
	t.Helper()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	var s metav1.Status
	if err := json.Unmarshal(text, &s); err != nil || resp.StatusCode != code || s.Kind != "Status" || int(s.Code) != code || s.Message == "" {
		t.Errorf("%s %s: answer %d %q, want a Status with code %d", resp.Request.Method, resp.Request.URL, resp.StatusCode, text, code)
	}
}

// refusals are what a proxy started without further flags does not do.
func (g *gateway) refusals(t *testing.T) {
	for _, path := range []string{
		"/api/v1/namespaces/default/pods/talker/exec?command=id&stdout=1",
		"/api/v1/namespaces/default/pods/talker/attach?stdout=1",
		"/api/v1/namespaces/default/pods/talker/portforward?ports=8080",
		"/api/v1/nodes/node-1/proxy/exec/default/talker/main?command=id&output=1",
		"/api/v1/nodes/node-1/proxy/run/default/talker/main?cmd=id",
	} {
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			wantStatus(t, do(t, http.DefaultClient, g.request(t, method, path)), http.StatusForbidden)
		}
	}
	foreign := g.request(t, http.MethodGet, "/api/v1/pods")
	foreign.Host = "rebind.test"
	wantStatus(t, do(t, http.DefaultClient, foreign), http.StatusForbidden)
	crossSite := g.request(t, http.MethodPost, "/api/v1/namespaces")
	crossSite.Header.Set("Origin", "http://evil.test")
	wantStatus(t, do(t, http.DefaultClient, crossSite), http.StatusForbidden)
}

// withoutAPIServer says that it is the API server that is away, and cuts a watch of it: a proper end would tell the client
// that nothing was lost.
func (g *gateway) withoutAPIServer(t *testing.T, watching *http.Response) {
	t.Helper()
	if _, err := io.Copy(io.Discard, watching.Body); err == nil {
		t.Error("the watch has ended as if it was complete")
	}
	wantStatus(t, do(t, http.DefaultClient, g.request(t, http.MethodGet, "/api/v1/pods")), http.StatusBadGateway)
}

// readOnly is a proxy that changes nothing and shows no Secret.
func (l *lab) readOnly(t *testing.T) {
	g := l.gateway(t, "--read-only", "--deny=secrets")
	client, ctx := g.clientset(t), t.Context()
	if _, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("list pods: %v", err)
	}
	if w, err := client.CoreV1().Pods("").Watch(ctx, metav1.ListOptions{}); err != nil {
		t.Errorf("watch pods: %v", err)
	} else {
		w.Stop()
	}
	_, err := client.CoreV1().ConfigMaps("default").Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: "no"}}, metav1.CreateOptions{})
	if !apierrors.IsForbidden(err) {
		t.Errorf("create: error %v, want forbidden", err)
	}
	if _, err := l.client.CoreV1().ConfigMaps("default").Get(ctx, "no", metav1.GetOptions{}); !apierrors.IsNotFound(err) {
		t.Errorf("what was refused is there: %v", err)
	}
	if _, err := client.CoreV1().Secrets("kube-system").List(ctx, metav1.ListOptions{}); !apierrors.IsForbidden(err) {
		t.Errorf("list Secrets: error %v, want forbidden", err)
	}
}

// contexts are reached by their names, with all that a context is for.
func (l *lab) contexts(t *testing.T) {
	const name = "varco-lab" // the only one there is
	g := l.gateway(t, "--contexts=all", "--allow=exec")
	conf := g.config()
	conf.Host += "/clusters/" + name
	client, err := kubernetes.NewForConfig(conf)
	if err != nil {
		t.Fatal(err)
	}
	if pods, err := client.CoreV1().Pods("").List(t.Context(), metav1.ListOptions{}); err != nil || len(pods.Items) < 5 {
		t.Errorf("list: %d pods, %v", len(pods.Items), err)
	}
	for _, open := range protocols() {
		l.exec(t, conf, open)
	}
	if got := g.ask(t, http.DefaultClient, "80.echo.default.svc."+name, "/", nil); got.Pod == "" {
		t.Errorf("the app saw %+v", got)
	}
	wantStatus(t, do(t, http.DefaultClient, g.request(t, http.MethodGet, "/clusters/nowhere/api")), http.StatusNotFound)
}

// socket is a proxy on a unix socket, which only its user may open and which goes with it.
func (l *lab) socket(t *testing.T) {
	dir, err := os.MkdirTemp("", "varco") // a test's own folder may be too long for a socket
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	path := filepath.Join(dir, "proxy.sock")
	g := l.start(t, []string{"--kubeconfig=" + l.writeKubeconfig(t, ""), "--unix-socket=" + path})
	if g.at != path {
		t.Errorf("it serves on %s, want %s", g.at, path)
	}
	if info, err := os.Stat(path); err != nil || info.Mode() != os.ModeSocket|0o700 {
		t.Errorf("socket is %v, %v", info.Mode(), err)
	}
	conf := &rest.Config{Host: "http://localhost", Dial: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", path)
	}}
	client, err := kubernetes.NewForConfig(conf)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Nodes().List(t.Context(), metav1.ListOptions{}); err != nil {
		t.Error(err)
	}
	g.end(t)
	if _, err := os.Stat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the socket is left: %v", err)
	}
}

func (l *lab) hear(t *testing.T, h *nettest.Journal, text string) {
	t.Helper()
	l.wait(t, fmt.Sprintf("%q", text), func() (string, bool) { return h.String(), strings.Contains(h.String(), text) })
}
