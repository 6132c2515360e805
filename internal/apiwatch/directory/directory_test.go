package directory_test

import (
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"slices"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"varco.dev/internal/apiwatch/apitest"
	"varco.dev/internal/apiwatch/directory"
	"varco.dev/internal/service"
)

// TestDirectoryFollowsObjects follows a server that streams its lists: the first ones, changes, and those after the streams
// were cut, in which some things are the same, some are new and some are gone.
func TestDirectoryFollowsObjects(t *testing.T) {
	server := apitest.New(t)
	server.Set("services", svc("a", 80), true)
	server.Set("endpointslices", slice("a-1", "a", "p=10.244.0.1", "q=10.244.0.2"), true)
	server.Set("pods", pod("p", "10.244.0.1", "fd00::1"), true)
	server.Set("nodes", node("n", "10.240.0.11"), true)
	d := follow(t, server.Client(t), quiet())
	for _, c := range []struct {
		what string
		got  func() string
		want string
	}{
		{"endpoints", endpoints(d, "a", "b"), "a→p=10.244.0.1,q=10.244.0.2 b→"},
		{"ports", ports(t, d, "a"), "80"},
		{"pod", podAddrs(t, d, "p"), "p=[10.244.0.1 fd00::1]"},
		{"node", nodeAddrs(t, d, "n"), "[{InternalIP 10.240.0.11}] 10250"},
	} {
		if got := c.got(); got != c.want {
			t.Errorf("once synced, %s: got %q, want %q", c.what, got, c.want)
		}
	}
	if n := server.Gets("pods") + server.Gets("services") + server.Gets("nodes"); n != 0 {
		t.Errorf("asked for %d objects that it knew", n)
	}

	server.Set("endpointslices", slice("a-0", "a", "r=10.244.0.3"), false)
	until(t, "a→r=10.244.0.3,p=10.244.0.1,q=10.244.0.2", endpoints(d, "a"))
	server.Set("endpointslices", slice("a-1", "b", "p=10.244.0.1"), false) // the slice changes hands
	until(t, "a→r=10.244.0.3 b→p=10.244.0.1", endpoints(d, "a", "b"))
	server.Set("services", svc("a", 80, 81), false)
	until(t, "80 81", ports(t, d, "a"))
	server.Set("pods", pod("p", "10.244.0.9"), false)
	until(t, "p=[10.244.0.9]", podAddrs(t, d, "p"))

	server.Delete("pods", "p", true)
	server.Delete("services", "a", true)
	server.Delete("nodes", "n", true)
	server.Delete("endpointslices", "a-1", true)
	server.Set("pods", pod("s", "10.244.0.1"), true)
	server.Set("endpointslices", slice("a-2", "a", "s=10.244.0.1"), true)
	server.Cut()
	until(t, "a→r=10.244.0.3,s=10.244.0.1 b→", endpoints(d, "a", "b"))
	until(t, `pods "p" not found s=[10.244.0.1]`, podAddrs(t, d, "p", "s"))
	until(t, `services "a" not found`, ports(t, d, "a"))
	until(t, `nodes "n" not found`, nodeAddrs(t, d, "n"))
}

// TestFakeClient follows client-go's own fake.
func TestFakeClient(t *testing.T) {
	client := fake.NewClientset(svc("a", 80), slice("a-1", "a", "p=10.244.0.1"), pod("p", "10.244.0.1"), node("n", "10.240.0.11"))
	d := follow(t, client, quiet())
	if got := endpoints(d, "a")() + " " + podAddrs(t, d, "p")() + " " + ports(t, d, "a")(); got != "a→p=10.244.0.1 p=[10.244.0.1] 80" {
		t.Errorf("once synced: got %q", got)
	}
	apitest.AwaitWatches(t, &client.Fake, 0, "pods", "endpointslices")
	if err := client.CoreV1().Pods("x").Delete(t.Context(), "p", metav1.DeleteOptions{}); err != nil {
		t.Fatal(err)
	}
	until(t, `pods "p" not found`, podAddrs(t, d, "p"))
	selectors := map[string]string{}
	for _, a := range client.Actions() {
		if l, ok := a.(interface{ GetListOptions() metav1.ListOptions }); ok && l.GetListOptions().Limit != 1 {
			selectors[a.GetResource().Resource] += a.GetVerb() + l.GetListOptions().LabelSelector + l.GetListOptions().FieldSelector
		}
	}
	if got := selectors["endpointslices"]; !strings.Contains(got, discoveryv1.LabelServiceName) {
		t.Errorf("asked for slices by %q", got)
	}
	if got := selectors["pods"]; !strings.Contains(got, "status.phase!=Failed,status.phase!=Succeeded") && !strings.Contains(got, "status.phase!=Succeeded,status.phase!=Failed") {
		t.Errorf("asked for pods by %q", got)
	}
}

// TestLive looks up objects that the watches say nothing of.
func TestLive(t *testing.T) {
	server := apitest.New(t)
	d := follow(t, server.Client(t), quiet())
	server.Set("services", svc("a", 80), true)
	server.Set("pods", pod("p", "10.244.0.1"), true)
	ended := pod("done", "10.244.0.1")
	ended.Status.Phase = corev1.PodSucceeded
	server.Set("pods", ended, true)
	server.Set("nodes", node("n", "10.240.0.11"), true)
	for range 3 {
		got := ports(t, d, "a")() + " " + podAddrs(t, d, "p")() + " " + nodeAddrs(t, d, "n")()
		if want := "80 p=[10.244.0.1] [{InternalIP 10.240.0.11}] 10250"; got != want {
			t.Errorf("got %q, want %q", got, want)
		}
	}
	if p, err := d.Pod(t.Context(), x("done")); err != nil || !p.Terminated {
		t.Errorf("of a pod that ended: got %+v, %v", p, err)
	}
	if s, p, n := server.Gets("services"), server.Gets("pods"), server.Gets("nodes"); s != 1 || p != 2 || n != 1 {
		t.Errorf("asked for %d Services, %d Pods, %d Nodes", s, p, n)
	}
	if v := d.Version(x("a")); v != 0 {
		t.Errorf("the watch does not know the Service, and it has version %d", v)
	}
	server.Set("services", svc("a", 81), false)
	until(t, "81", ports(t, d, "a"))
	if v := d.Version(x("a")); v == 0 {
		t.Error("the watch knows the Service, and it has no version")
	}
	server.Set("pods", pod("p", "10.244.0.2"), false)
	until(t, "p=[10.244.0.2]", podAddrs(t, d, "p"))
	server.Delete("pods", "p", false)
	until(t, `pods "p" not found`, podAddrs(t, d, "p"))
}

// TestEnded has a pod end: it is not kept, but asked for.
func TestEnded(t *testing.T) {
	server := apitest.New(t)
	server.Set("services", svc("a", 80), true)
	server.Set("endpointslices", slice("a-1", "a", "p=10.244.0.1"), true)
	server.Set("pods", pod("p", "10.244.0.1"), true)
	d := follow(t, server.Client(t), quiet())
	before := d.Version(x("a"))
	ended := pod("p", "10.244.0.1")
	ended.Status.Phase = corev1.PodFailed
	server.Set("pods", ended, false)
	until(t, "true", func() string { return fmt.Sprint(d.Version(x("a")) != before) })
	if p, err := d.Pod(t.Context(), x("p")); err != nil || !p.Terminated || server.Gets("pods") != 1 {
		t.Errorf("got %+v, %v; asked %d times", p, err, server.Gets("pods"))
	}
}

// TestGone has pods be found before the watch has them, and go, whether their start was seen or not.
func TestGone(t *testing.T) {
	server := apitest.New(t)
	d := follow(t, server.Client(t), quiet())
	for name, seen := range map[string]bool{"p": false, "q": true} {
		server.Set("pods", pod(name, "10.244.0.1"), true)
		if got := podAddrs(t, d, name)(); got != name+"=[10.244.0.1]" {
			t.Errorf("seen %t: got %q", seen, got)
		}
		if seen {
			server.Set("pods", pod(name, "10.244.0.1"), false)
		}
		server.Delete("pods", name, false)
		until(t, fmt.Sprintf("pods %q not found", name), podAddrs(t, d, name))
	}
}

// TestMissing looks up what there is not, and what cannot be.
func TestMissing(t *testing.T) {
	server := apitest.New(t)
	d := follow(t, server.Client(t), quiet())
	for _, c := range []struct {
		name service.Name
		code int32
		want string
		gets int
	}{
		{x("none"), 404, `pods "none" not found`, 1},
		{x("none"), 404, `pods "none" not found`, 0}, // remembered
		{x(""), 400, "Name parameter required.", 0},
		{x(".."), 400, `Name parameter invalid: "..": may not be '..'`, 0},
		{x("a/b"), 400, `Name parameter invalid: "a/b": may not contain '/'`, 0},
		{service.Name{Namespace: "..", Name: "a"}, 400, `Namespace parameter invalid: "..": may not be '..'`, 0},
		{x(strings.Repeat("a", 254)), 404, fmt.Sprintf("pods %q not found", strings.Repeat("a", 254)), 0},
	} {
		before := server.Gets("pods")
		_, err := d.Pod(t.Context(), c.name)
		status := (*apierrors.StatusError)(nil)
		if !errors.As(err, &status) || status.ErrStatus.Code != c.code || err.Error() != c.want {
			t.Errorf("%v: got %v, want %d %s", c.name, err, c.code, c.want)
		}
		if n := server.Gets("pods") - before; n != c.gets {
			t.Errorf("%v: asked %d times, want %d", c.name, n, c.gets)
		}
	}
	server.Set("pods", pod("none", "10.244.0.1"), false) // the watch is quicker than what is remembered
	until(t, "none=[10.244.0.1]", podAddrs(t, d, "none"))
}

// TestOutage stops the API server: what is known is served on, the rest is said to be out of reach. Then it is started with
// other objects.
func TestOutage(t *testing.T) {
	server := apitest.New(t)
	server.Set("services", svc("a", 80), true)
	server.Set("endpointslices", slice("a-1", "a", "p=10.244.0.1"), true)
	server.Set("pods", pod("p", "10.244.0.1"), true)
	d := follow(t, server.Client(t), quiet())
	server.Stop()
	if got := ports(t, d, "a")() + " " + endpoints(d, "a")() + " " + podAddrs(t, d, "p")(); got != "80 a→p=10.244.0.1 p=[10.244.0.1]" {
		t.Errorf("while the server is away: got %q", got)
	}
	_, err := d.Pod(t.Context(), x("q"))
	status := (*apierrors.StatusError)(nil)
	if !errors.As(err, &status) || status.ErrStatus.Code != http.StatusServiceUnavailable || status.ErrStatus.Details.RetryAfterSeconds == 0 {
		t.Errorf("an unknown pod: got %v", err)
	}
	server.Delete("pods", "p", true)
	server.Set("pods", pod("q", "10.244.0.1"), true) // the address is another one's now
	server.Set("services", svc("a", 81), true)
	server.Restart(t)
	until(t, "81", ports(t, d, "a"))
	until(t, `pods "p" not found q=[10.244.0.1]`, podAddrs(t, d, "p", "q"))
}

// TestWithoutPermission has a server that lets Nodes be neither listed nor read, then read alone.
func TestWithoutPermission(t *testing.T) {
	server, log := apitest.New(t), &lines{}
	server.Set("services", svc("a", 80), true)
	server.Set("nodes", node("n", "10.240.0.11"), true)
	server.Miss("nodes", http.StatusForbidden)
	d := follow(t, server.Client(t), slog.New(slog.NewTextHandler(log, nil)))
	if got := ports(t, d, "a")(); got != "80" {
		t.Errorf("of a Service: got %q", got)
	}
	if _, err := d.Node(t.Context(), "n"); !apierrors.IsForbidden(err) {
		t.Errorf("of a Node: got %v", err)
	}
	if n := log.count("objects may not be listed"); n != 1 {
		t.Errorf("said so %d times", n)
	}
	if since, err := d.Lost(); !since.IsZero() || err != nil {
		t.Errorf("the API server is taken for lost since %v: %v", since, err)
	}
	server.Miss("nodes", 0)
	until(t, "[{InternalIP 10.240.0.11}] 10250", nodeAddrs(t, d, "n")) // once the refusal counts no more
}

// TestWithoutLists has a server that lets neither EndpointSlices nor pods be listed. What is computed from pods must not be kept
// then: nobody would tell that an address is another pod's by now.
func TestWithoutLists(t *testing.T) {
	server, log := apitest.New(t), &lines{}
	server.Set("services", svc("a", 80), true)
	server.Miss("endpointslices", http.StatusForbidden)
	server.Miss("pods", http.StatusForbidden)
	d := follow(t, server.Client(t), slog.New(slog.NewTextHandler(log, nil)))
	if got := ports(t, d, "a")(); got != "80" || d.Version(x("a")) != 0 {
		t.Errorf("got %q, version %d", got, d.Version(x("a")))
	}
	if slices, others := log.count("Services have no endpoints"), log.count("objects may not be listed"); slices != 1 || others != 1 {
		t.Errorf("said so %d times of slices, %d times of pods", slices, others)
	}
}

// TestAPIServers follows the endpoints and the addresses of default/kubernetes. Other Services keep none.
func TestAPIServers(t *testing.T) {
	server := apitest.New(t)
	d := follow(t, server.Client(t), quiet())
	if got := d.APIServers(); len(got) != 0 {
		t.Errorf("without a slice: got %v", got)
	}
	s := slice("kubernetes", "kubernetes", "=192.0.2.2", "=192.0.2.1", "=192.0.2.1")
	s.Namespace = "default"
	s.Endpoints[0].Conditions.Ready = new(bool)
	server.Set("endpointslices", s, false)
	describe := func() string { return fmt.Sprint(d.APIServers()) }
	until(t, "[192.0.2.1:8080 192.0.2.2:8080]", describe)
	own := svc("kubernetes", 443)
	own.Namespace, own.Spec.ClusterIPs = "default", []string{"10.96.0.1", "fd00::1"}
	server.Set("services", own, false)
	until(t, "[10.96.0.1:443 192.0.2.1:8080 192.0.2.2:8080 [fd00::1]:443]", describe)
	server.Delete("endpointslices", "kubernetes", false)
	until(t, "[10.96.0.1:443 [fd00::1]:443]", describe)
	server.Delete("services", "kubernetes", false)
	until(t, "[]", describe)
	if other, _ := directory.ServiceOf(svc("other", 443)); other.ClusterIPs != nil {
		t.Errorf("another Service keeps %v", other.ClusterIPs)
	}
}

// TestVersions looks at what gives a Service a new version, and what does not.
func TestVersions(t *testing.T) {
	server := apitest.New(t)
	server.Set("services", svc("a", 80), true)
	server.Set("services", svc("b", 80), true)
	server.Set("endpointslices", slice("a-1", "a", "p=10.244.0.1"), true)
	server.Set("endpointslices", slice("b-1", "b", "q=10.244.0.2"), true)
	server.Set("pods", pod("p", "10.244.0.1"), true)
	server.Set("services", svc("marker"), true)
	server.Set("endpointslices", slice("marker", "marker", "marker=192.0.2.1"), true)
	d := follow(t, server.Client(t), quiet())
	marker := 0
	// settle returns when the watch has handed on all changes of a kind so far.
	settle := func(kind string) {
		marker++
		name := fmt.Sprint("marker-", marker)
		switch kind {
		case "services":
			server.Set(kind, svc(name, 1), false)
			until(t, "true", func() string { return fmt.Sprint(d.Version(x(name)) != 0) })
		case "endpointslices":
			server.Set(kind, slice(name, name, "=192.0.2.1"), false)
			until(t, name+"→=192.0.2.1", endpoints(d, name))
		case "pods": // one of a Service: a pod can be looked up before the watch has it
			before := d.Version(x("marker"))
			server.Set(kind, pod("marker", fmt.Sprint("192.0.2.", marker)), false)
			until(t, "true", func() string { return fmt.Sprint(d.Version(x("marker")) != before) })
		}
	}
	late := pod("p", "10.244.0.1")
	late.Status.Message = "nothing that counts"
	for _, c := range []struct {
		name    string
		kind    string
		change  func()
		changes string
	}{
		{"the Service", "services", func() { server.Set("services", svc("a", 81), false) }, "a"},
		{"the same", "services", func() { server.Set("services", svc("a", 81), false) }, ""},
		{"a slice", "endpointslices", func() { server.Set("endpointslices", slice("a-1", "a", "p=10.244.0.1", "r=10.244.0.3"), false) }, "a"},
		{"the same slice", "endpointslices", func() {
			server.Set("endpointslices", slice("a-1", "a", "p=10.244.0.1", "r=10.244.0.3"), false)
		}, ""},
		{"a pod's address", "pods", func() { server.Set("pods", pod("p", "10.244.0.9"), false) }, "a"},
		{"back", "pods", func() { server.Set("pods", pod("p", "10.244.0.1"), false) }, "a"},
		{"a pod's message", "pods", func() { server.Set("pods", late, false) }, ""},
		{"a pod that comes after its slice", "pods", func() { server.Set("pods", pod("r", "10.244.0.3"), false) }, "a"},
		{"a pod of no slice", "pods", func() { server.Set("pods", pod("other", "10.244.0.4"), false) }, ""},
		{"a slice that changes hands", "endpointslices", func() {
			server.Set("endpointslices", slice("a-1", "b", "p=10.244.0.1"), false)
		}, "a b"},
		{"its pod", "pods", func() { server.Set("pods", pod("p", "10.244.0.9"), false) }, "b"},
		{"a pod that goes", "pods", func() { server.Delete("pods", "p", false) }, "b"},
		{"a pod that was let go", "pods", func() { server.Delete("pods", "r", false) }, ""},
		{"a slice that goes", "endpointslices", func() { server.Delete("endpointslices", "b-1", false) }, "b"},
	} {
		before := map[string]uint64{"a": d.Version(x("a")), "b": d.Version(x("b"))}
		c.change()
		settle(c.kind)
		var changed []string
		for _, name := range []string{"a", "b"} {
			if d.Version(x(name)) != before[name] {
				changed = append(changed, name)
			}
		}
		if got := strings.Join(changed, " "); got != c.changes {
			t.Errorf("%s: changes %q, want %q", c.name, got, c.changes)
		}
	}
}

// TestSlicesStay looks at the list of a Service's slices: the same one while nothing changes.
func TestSlicesStay(t *testing.T) {
	server := apitest.New(t)
	server.Set("endpointslices", slice("a-2", "a", "=10.244.0.2"), true)
	server.Set("endpointslices", slice("a-1", "a", "=10.244.0.1"), true)
	d := follow(t, server.Client(t), quiet())
	first := d.Slices(x("a"))
	server.Set("endpointslices", slice("b-1", "b", "=10.244.0.3"), false)
	until(t, "b→=10.244.0.3", endpoints(d, "b"))
	server.Cut()
	server.Set("endpointslices", slice("c-1", "c", "=10.244.0.3"), false)
	until(t, "c→=10.244.0.3", endpoints(d, "c"))
	if again := d.Slices(x("a")); len(first) != 2 || len(again) != 2 || &first[0] != &again[0] || !slices.IsSortedFunc(again, func(a, b *directory.Slice) int { return a.Name.Compare(b.Name) }) {
		t.Errorf("got %v, then %v", first, again)
	}
	server.Set("endpointslices", slice("a-0", "a", "=10.244.0.0"), false)
	until(t, "a→=10.244.0.0,=10.244.0.1,=10.244.0.2", endpoints(d, "a"))
	if len(first) != 2 || first[0].Name.Name != "a-1" {
		t.Errorf("the list that was read before changed: %v", first)
	}
}
