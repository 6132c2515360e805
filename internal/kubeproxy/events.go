package kubeproxy

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/tools/events"

	"varco.dev/internal/service"
)

// Bounds of events. The library keeps each that the API server does not take for two minutes.
const (
	maxEvents = 64                     // that wait to be sent; what is more is dropped
	eventGap  = 100 * time.Millisecond // between two
)

// reporter writes events about what users would look for in vain: on the Node about the proxy, on a Service about what it
// does not get. Reasons, actions and the name of the reporter are upstream's.
type reporter struct {
	client kubernetes.Interface
	node   string
	queue  chan event
}

type event struct {
	about        *corev1.ObjectReference
	kind, reason string
	action, note string
}

// newReporter returns a reporter that sends nothing before Run.
func newReporter(client kubernetes.Interface, node string) *reporter {
	return &reporter{client: client, node: node, queue: make(chan event, maxEvents)}
}

// Run sends events until the context ends; then it returns nil.
func (r *reporter) Run(ctx context.Context) error {
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: r.client.EventsV1()})
	defer broadcaster.Shutdown()
	if err := broadcaster.StartRecordingToSinkWithContext(ctx); err != nil {
		return fmt.Errorf("begin to send events: %w", err)
	}
	recorder := broadcaster.NewRecorder(scheme.Scheme, "kube-proxy")
	for {
		select {
		case <-ctx.Done():
			return nil
		case e := <-r.queue:
			recorder.Eventf(e.about, nil, e.kind, e.reason, e.action, "%s", e.note)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(eventGap):
		}
	}
}

// starting says on the Node that the proxy is.
func (r *reporter) starting() {
	r.send(event{r.nodeRef(), corev1.EventTypeNormal, "Starting", "StartKubeProxy", ""})
}

// healthFailed says on the Node that the port for the proxy's health cannot be used.
func (r *reporter) healthFailed(err error) {
	r.send(event{r.nodeRef(), corev1.EventTypeWarning, "FailedToStartProxierHealthcheck", "StartKubeProxy", err.Error()})
}

// metricsFailed says on the Node that the port for metrics cannot be used.
func (r *reporter) metricsFailed(err error) {
	r.send(event{r.nodeRef(), corev1.EventTypeWarning, "FailedToStartMetricServer", "StartKubeProxy", err.Error()})
}

// checkFailed says on a Service that its health check port cannot be used on this node.
func (r *reporter) checkFailed(svc service.Name, port uint16, err error) {
	about := &corev1.ObjectReference{APIVersion: "v1", Kind: "Service", Namespace: svc.Namespace, Name: svc.Name}
	note := fmt.Sprintf("node %s failed to start healthcheck %q on port %d: %v", r.node, svc, port, err)
	r.send(event{about, corev1.EventTypeWarning, "FailedToStartServiceHealthcheck", "Listen", note})
}

func (r *reporter) nodeRef() *corev1.ObjectReference {
	return &corev1.ObjectReference{APIVersion: "v1", Kind: "Node", Name: r.node}
}

// send does not block: an event is not worth waiting for.
func (r *reporter) send(e event) {
	select {
	case r.queue <- e:
	default:
	}
}
