package kubeproxy

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/google/go-cmp/cmp"
	eventsv1 "k8s.io/api/events/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"

	"varco.dev/internal/service"
)

func TestEvents(t *testing.T) {
	client := fake.NewClientset()
	watcher, err := client.EventsV1().Events("").Watch(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	defer watcher.Stop()
	ctx, cancel := context.WithCancel(t.Context())
	r := newReporter(client, "node-1")
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx) }()
	broken := errors.New("address in use")
	got := map[string]string{}
	for i, send := range []func(){
		r.starting,
		func() { r.healthFailed(broken) },
		func() { r.metricsFailed(broken) },
		func() { r.checkFailed(service.Name{Namespace: "ns", Name: "web"}, 30001, broken) },
	} {
		send()
		e := next(t, watcher, i)
		got[e.Reason] = fmt.Sprintf("%s in %s, %s/%s/%s by %s: %s %s", e.Type, e.Namespace,
			e.Regarding.Kind, e.Regarding.Namespace, e.Regarding.Name, e.ReportingController, e.Action, e.Note)
	}
	want := map[string]string{
		"Starting":                        "Normal in default, Node//node-1 by kube-proxy: StartKubeProxy ",
		"FailedToStartProxierHealthcheck": "Warning in default, Node//node-1 by kube-proxy: StartKubeProxy address in use",
		"FailedToStartMetricServer":       "Warning in default, Node//node-1 by kube-proxy: StartKubeProxy address in use",
		"FailedToStartServiceHealthcheck": `Warning in ns, Service/ns/web by kube-proxy: Listen node node-1 failed to start healthcheck "ns/web" on port 30001: address in use`,
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	cancel()
	if err := <-done; err != nil {
		t.Errorf("ended with %v", err)
	}
	for range 2 * maxEvents {
		r.starting() // nobody takes them: they must not block
	}
}

func next(t *testing.T, w watch.Interface, i int) *eventsv1.Event {
	t.Helper()
	got, ok := <-w.ResultChan()
	e, isEvent := got.Object.(*eventsv1.Event)
	if !ok || !isEvent {
		t.Fatalf("event %d: got %#v", i, got)
	}
	return e
}
