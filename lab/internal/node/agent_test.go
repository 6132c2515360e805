package node_test

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/spf13/cobra"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/fake"
	"varco.dev/internal/apiwatch/apitest"
	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/node"
)

// imageCommand is the first argument by which the test binary is the test's image.
const imageCommand = "be-the-image"

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == imageCommand {
		beImage(os.Args[2:])
		return
	}
	if len(os.Args) > 2 && os.Args[1] == "node" && os.Args[2] == "container-init" {
		root := &cobra.Command{SilenceUsage: true, SilenceErrors: true}
		root.AddCommand(node.Command())
		if root.Execute() != nil { // the agent knows why
			os.Exit(1)
		}
	}
	os.Exit(m.Run())
}

// beImage serves HTTP on port 8080 and says on standard output when it starts and when it sees SIGTERM. Then it ends,
// or does not if it was told to be stubborn. It fails at once if told so.
func beImage(args []string) {
	mode := strings.Join(args, " ")
	fmt.Println("started", mode)
	switch mode {
	case "fail":
		os.Exit(3)
	case "succeed":
		return
	case "talk":
		talk()
		return
	}
	sigs := make(chan os.Signal, 1)
	signal.Notify(sigs, syscall.SIGTERM)
	http.HandleFunc("/ready", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, os.Getenv("POD_IP")) })
	http.HandleFunc("/write", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, os.WriteFile(r.URL.Query().Get("path"), []byte("x"), 0o644))
	})
	http.HandleFunc("/file", func(w http.ResponseWriter, r *http.Request) {
		path := r.URL.Query().Get("path")
		entries, _ := os.ReadDir(path)
		for _, e := range entries {
			fmt.Fprintln(w, e.Name())
		}
		b, _ := os.ReadFile(path)
		_, _ = w.Write(b) // the client may be gone
	})
	go func() { fmt.Println(http.ListenAndServe(":8080", nil)) }()
	<-sigs
	fmt.Println("SIGTERM seen")
	if mode == "stubborn" {
		select {}
	}
}

// world is an agent on a node of its own, with a fake API server.
type world struct {
	t      *testing.T
	client *fake.Clientset
	node   *nettest.Namespace
	dir    string
	agent  *node.Agent // the one that runs
	end    func()
}

func newWorld(t *testing.T) *world {
	t.Helper()
	nettest.NeedRoot(t)
	goroutines := runtime.NumGoroutine()
	ns, err := nettest.NewNamespace("node-1")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ns.Close() })
	client := fake.NewClientset(&v1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: "node-1"},
		Spec:       v1.NodeSpec{PodCIDRs: []string{"10.244.1.0/24", "fd00:244:0:1::/64"}},
	})
	w := &world{t: t, client: client, node: ns, dir: t.TempDir()}
	w.start()
	t.Cleanup(func() {
		w.end()
		w.noProcess()
		eventually(t, "no goroutine is left", func() bool { return runtime.NumGoroutine() <= goroutines })
	})
	return w
}

// start starts an agent, which end ends.
func (w *world) start() {
	w.t.Helper()
	self, err := os.Executable()
	if err != nil {
		w.t.Fatal(err)
	}
	agent := node.New(node.Config{
		Name: "node-1", Dir: filepath.Join(w.dir, "state"), NetnsDir: filepath.Join(w.dir, "netns"), Namespace: w.node, Client: w.client,
		NodeIPs: []netip.Addr{netip.MustParseAddr("10.240.0.11"), netip.MustParseAddr("fd00:240::b")},
		Images:  map[string][]string{"test": {self, imageCommand}}, Log: slog.New(slog.NewTextHandler(w.t.Output(), nil)),
	})
	w.agent = agent
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	before := len(w.client.Actions())
	go func() { done <- agent.Run(ctx) }()
	apitest.AwaitWatches(w.t, &w.client.Fake, before, "pods")
	w.end = func() {
		cancel()
		if err := <-done; err != nil {
			w.t.Errorf("agent: %v", err)
		}
		w.end = func() {}
	}
}

// restart ends the agent and starts another.
func (w *world) restart() {
	w.t.Helper()
	w.end()
	w.start()
}

// noProcess checks that no process of an image is left.
func (w *world) noProcess() {
	w.t.Helper()
	if pids := imageProcesses(w.dir); len(pids) > 0 {
		w.t.Errorf("processes left behind: %v", pids)
	}
}

// imageProcesses returns the processes whose environment shows that they belong to a test's folder.
func imageProcesses(dir string) []string {
	var pids []string
	files, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, f := range files {
		env, _ := os.ReadFile(f)
		if strings.Contains(string(env), "TEST_DIR="+dir+"\x00") {
			pids = append(pids, filepath.Base(filepath.Dir(f)))
		}
	}
	return pids
}

// pod returns a pod of the test's image; mode is its argument.
func (w *world) pod(name, mode string) *v1.Pod {
	grace := int64(30)
	return &v1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default", UID: types.UID("uid-" + name)},
		Spec: v1.PodSpec{
			NodeName: "node-1", TerminationGracePeriodSeconds: &grace, RestartPolicy: v1.RestartPolicyAlways,
			Containers: []v1.Container{{
				Name: "main", Image: "test", Args: []string{mode},
				Env: []v1.EnvVar{
					{Name: "TEST_DIR", Value: w.dir},
					{Name: "POD_IP", ValueFrom: &v1.EnvVarSource{FieldRef: &v1.ObjectFieldSelector{FieldPath: "status.podIP"}}},
				},
				ReadinessProbe: &v1.Probe{PeriodSeconds: 1, ProbeHandler: v1.ProbeHandler{
					HTTPGet: &v1.HTTPGetAction{Path: "/ready", Port: intstr.FromInt32(8080)},
				}},
			}},
		},
	}
}

func (w *world) create(pod *v1.Pod) {
	w.t.Helper()
	if _, err := w.client.CoreV1().Pods(pod.Namespace).Create(context.Background(), pod, metav1.CreateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// delete marks a pod as being deleted, as the API server does for a graceful deletion.
func (w *world) delete(name string, grace int64) {
	w.t.Helper()
	pods := w.client.CoreV1().Pods("default")
	pod, err := pods.Get(context.Background(), name, metav1.GetOptions{})
	if err != nil {
		w.t.Fatal(err)
	}
	now := metav1.Now()
	pod.DeletionTimestamp, pod.DeletionGracePeriodSeconds = &now, &grace
	if _, err := pods.Update(context.Background(), pod, metav1.UpdateOptions{}); err != nil {
		w.t.Fatal(err)
	}
}

// await polls the pod until ok, and returns it. A nil pod stands for one that is gone.
func (w *world) await(name, what string, ok func(*v1.Pod) bool) *v1.Pod {
	w.t.Helper()
	var pod *v1.Pod
	found := poll(20*time.Second, func() bool {
		p, err := w.client.CoreV1().Pods("default").Get(context.Background(), name, metav1.GetOptions{})
		if apierrors.IsNotFound(err) {
			p = nil
		} else if err != nil {
			w.t.Fatal(err)
		}
		pod = p
		return ok(pod)
	})
	if !found {
		got, _ := json.MarshalIndent(pod, "", " ")
		w.t.Fatalf("pod %s never was %s; it is %s\nlog: %s", name, what, got, w.log(name))
	}
	return pod
}

// poll asks until ok or the time is over, and returns whether it was ok.
func poll(limit time.Duration, ok func() bool) bool {
	for end := time.Now().Add(limit); !ok(); {
		if time.Now().After(end) {
			return false
		}
		time.Sleep(5 * time.Millisecond) // what is asked for has no event to wait for
	}
	return true
}

func (w *world) log(name string) string {
	b, _ := os.ReadFile(filepath.Join(w.dir, "state", "log", "default_"+name+"_uid-"+name+"_main.log"))
	return string(b)
}

func (w *world) get(url string) string {
	w.t.Helper()
	c := http.Client{Transport: &http.Transport{DialContext: w.node.DialContext, DisableKeepAlives: true}}
	resp, err := c.Get(url)
	if err != nil {
		w.t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		w.t.Fatal(err)
	}
	return string(b)
}

func isReady(p *v1.Pod) bool {
	if p == nil {
		return false
	}
	for _, c := range p.Status.Conditions {
		if c.Type == v1.PodReady {
			return c.Status == v1.ConditionTrue
		}
	}
	return false
}

func isGone(p *v1.Pod) bool { return p == nil }

// last returns the pod as the agent last reported it before the pod's object was deleted.
func (w *world) last(name string) *v1.Pod {
	var last *v1.Pod
	for _, a := range w.client.Actions() {
		if p, ok := a.(interface {
			GetPatch() []byte
			GetName() string
		}); ok && p.GetName() == name {
			got := &v1.Pod{}
			if json.Unmarshal(p.GetPatch(), got) == nil && len(got.Status.ContainerStatuses) > 0 {
				last = got
			}
		}
	}
	return last
}

func TestPodLife(t *testing.T) {
	w := newWorld(t)
	w.create(w.pod("web", "serve"))
	began := time.Now()
	pod := w.await("web", "ready", isReady)
	t.Logf("ready after %v", time.Since(began))
	if pod.Status.Phase != v1.PodRunning || pod.Status.PodIP != "10.244.1.2" || len(pod.Status.PodIPs) != 2 {
		t.Errorf("got phase %s, addresses %v; want Running, 10.244.1.2 and an IPv6 address", pod.Status.Phase, pod.Status.PodIPs)
	}
	for _, ip := range pod.Status.PodIPs {
		if got := w.get("http://" + net.JoinHostPort(ip.IP, "8080") + "/ready"); got != "10.244.1.2" {
			t.Errorf("pod answers %q, want the value of its POD_IP", got)
		}
	}
	if _, err := os.Stat(filepath.Join(w.dir, "netns", "default_web")); err != nil {
		t.Error(err)
	}
	w.delete("web", 30)
	began = time.Now()
	w.await("web", "gone", isGone)
	t.Logf("gone after %v", time.Since(began))
	if !strings.Contains(w.log("web"), "SIGTERM seen") {
		t.Errorf("no SIGTERM in log:\n%s", w.log("web"))
	}
	last := w.last("web")
	if s := last.Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 0 {
		t.Errorf("last state %+v, want terminated with exit code 0", last.Status.ContainerStatuses[0].State)
	}
	if left, _ := filepath.Glob(filepath.Join(w.dir, "*", "pods", "*uid-web*")); len(left) > 0 {
		t.Errorf("files left behind: %v", left)
	}
	if _, err := os.Stat(filepath.Join(w.dir, "netns", "default_web")); err == nil {
		t.Error("network namespace file left behind")
	}
	w.noProcess()
}

func TestKillAfterGrace(t *testing.T) {
	w := newWorld(t)
	w.create(w.pod("web", "stubborn"))
	w.await("web", "ready", isReady)
	w.delete("web", 1)
	began := time.Now()
	w.await("web", "gone", isGone)
	if took := time.Since(began); took < time.Second || took > 4*time.Second {
		t.Errorf("gone after %v, want a little over 1 s", took)
	}
	if s := w.last("web").Status.ContainerStatuses[0].State.Terminated; s == nil || s.ExitCode != 137 {
		t.Errorf("last state %+v, want exit code 137", s)
	}
}

func TestForceDelete(t *testing.T) {
	w := newWorld(t)
	w.create(w.pod("web", "stubborn"))
	w.await("web", "ready", isReady)
	if err := w.client.CoreV1().Pods("default").Delete(context.Background(), "web", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	eventually(t, "its process is gone", func() bool { return len(imageProcesses(w.dir)) == 0 })
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	if poll(10*time.Second, ok) {
		return
	}
	if b := make([]byte, 1<<16); testing.Verbose() {
		t.Logf("%s", b[:runtime.Stack(b, true)])
	}
	t.Fatalf("never seen that %s", what)
}

func TestAgentEndKillsPods(t *testing.T) {
	w := newWorld(t)
	w.create(w.pod("web", "stubborn"))
	w.await("web", "ready", isReady)
	w.end()
	w.noProcess()
	if pod := w.await("web", "there", func(p *v1.Pod) bool { return p != nil }); !isReady(pod) {
		t.Error("an agent that ends changed the status of its pod")
	}
}

func TestEnds(t *testing.T) {
	tests := []struct {
		name, mode string
		policy     v1.RestartPolicy
		want       func(*v1.Pod) bool
	}{
		{"succeeds", "succeed", v1.RestartPolicyNever, func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded }},
		{"succeeds on failure", "succeed", v1.RestartPolicyOnFailure, func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded }},
		{"fails", "fail", v1.RestartPolicyNever, func(p *v1.Pod) bool {
			return p.Status.Phase == v1.PodFailed && p.Status.ContainerStatuses[0].State.Terminated.ExitCode == 3
		}},
		{"crash loop", "fail", v1.RestartPolicyAlways, func(p *v1.Pod) bool {
			if len(p.Status.ContainerStatuses) == 0 {
				return false
			}
			s := p.Status.ContainerStatuses[0]
			return p.Status.Phase == v1.PodRunning && s.RestartCount == 2 &&
				s.State.Waiting != nil && s.State.Waiting.Reason == "CrashLoopBackOff" && s.LastTerminationState.Terminated.ExitCode == 3
		}},
	}
	w := newWorld(t)
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			name := strings.ReplaceAll(tt.name, " ", "-")
			pod := w.pod(name, tt.mode)
			pod.Spec.RestartPolicy = tt.policy
			pod.Spec.Containers[0].ReadinessProbe = nil
			w.create(pod)
			w.await(name, tt.name, tt.want)
			w.delete(name, 30)
			w.await(name, "gone", isGone)
		})
	}
}

func TestLiveness(t *testing.T) {
	w := newWorld(t)
	self, _ := os.Executable()
	pod := w.pod("web", "serve")
	pod.Spec.Containers[0].LivenessProbe = &v1.Probe{PeriodSeconds: 1, FailureThreshold: 1, InitialDelaySeconds: 1, ProbeHandler: v1.ProbeHandler{
		Exec: &v1.ExecAction{Command: []string{self, imageCommand, "fail"}},
	}}
	w.create(pod)
	w.await("web", "ready", isReady)
	pod = w.await("web", "restarted", func(p *v1.Pod) bool { return p.Status.ContainerStatuses[0].RestartCount > 0 && isReady(p) })
	if s := pod.Status.ContainerStatuses[0].LastTerminationState.Terminated; s == nil || s.Message != "failed liveness probe" {
		t.Errorf("last state %+v, want one ended by the liveness probe", s)
	}
	if b, _ := os.ReadFile(filepath.Join(w.dir, "state", "log", "default_web_uid-web_main.log.previous")); !strings.Contains(string(b), "SIGTERM seen") {
		t.Errorf("log of the run before: %q, want SIGTERM in it", b)
	}
}

func TestInitContainers(t *testing.T) {
	w := newWorld(t)
	always := v1.ContainerRestartPolicyAlways
	pod := w.pod("web", "succeed")
	pod.Spec.RestartPolicy = v1.RestartPolicyNever
	main := &pod.Spec.Containers[0]
	probe := main.ReadinessProbe
	main.ReadinessProbe = nil
	first, side := *main, *main
	first.Name, side.Name = "first", "side"
	side.Args, side.RestartPolicy, side.StartupProbe = []string{"serve"}, &always, probe
	pod.Spec.InitContainers = []v1.Container{first, side}
	w.create(pod)
	got := w.await("web", "succeeded", func(p *v1.Pod) bool { return p.Status.Phase == v1.PodSucceeded })
	for _, s := range got.Status.InitContainerStatuses {
		if s.State.Terminated == nil || s.State.Terminated.ExitCode != 0 || s.RestartCount != 0 {
			t.Errorf("init container %s: %+v, want ended with 0 and not restarted", s.Name, s.State)
		}
	}
	w.noProcess()
}

func TestWaiting(t *testing.T) {
	w := newWorld(t)
	noImage := w.pod("no-image", "serve")
	noImage.Spec.Containers[0].Image = "nginx"
	noConfig := w.pod("no-config", "serve")
	noConfig.Spec.Containers[0].EnvFrom = []v1.EnvFromSource{{ConfigMapRef: &v1.ConfigMapEnvSource{LocalObjectReference: v1.LocalObjectReference{Name: "no"}}}}
	for reason, pod := range map[string]*v1.Pod{"ErrImagePull": noImage, "CreateContainerConfigError": noConfig} {
		w.create(pod)
		w.await(pod.Name, reason, func(p *v1.Pod) bool {
			s := p.Status.ContainerStatuses
			return p.Status.Phase == v1.PodPending && len(s) > 0 && s[0].State.Waiting != nil && s[0].State.Waiting.Reason == reason
		})
		w.delete(pod.Name, 30)
		w.await(pod.Name, "gone", isGone)
	}
}
