package demo

import (
	"context"
	"fmt"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// waitTimeout bounds each wait for the cluster.
const waitTimeout = 2 * time.Minute

// poll asks until it is done; if that takes too long, the error has the last state that was seen.
func poll(ctx context.Context, ask func(context.Context) (done bool, state string, err error)) error {
	ctx, cancel := context.WithTimeout(ctx, waitTimeout)
	defer cancel()
	var last string
	for {
		done, state, err := ask(ctx)
		if done && err == nil {
			return nil
		}
		if err == nil {
			last = state
		}
		select {
		case <-ctx.Done():
			if err != nil && last == "" {
				return err
			}
			return fmt.Errorf("wait: %w; the last state was: %s", ctx.Err(), last)
		case <-time.After(100 * time.Millisecond):
		}
	}
}

// podsOf lists the pods of a Deployment.
func podsOf(ctx context.Context, client kubernetes.Interface, app string) ([]corev1.Pod, error) {
	l, err := client.CoreV1().Pods(metav1.NamespaceDefault).List(ctx, metav1.ListOptions{LabelSelector: "app=" + app})
	if err != nil {
		return nil, err
	}
	return l.Items, nil
}

// awaitPods waits until a Deployment has exactly that many pods and all are ready, and returns them.
func awaitPods(ctx context.Context, client kubernetes.Interface, app string, n int) (pods []corev1.Pod, err error) {
	err = poll(ctx, func(ctx context.Context) (bool, string, error) {
		if pods, err = podsOf(ctx, client, app); err != nil {
			return false, "", err
		}
		return len(pods) == n && countReady(pods) == n, describe(pods), nil
	})
	return pods, err
}

func countReady(pods []corev1.Pod) (n int) {
	for i := range pods {
		if ready(&pods[i]) {
			n++
		}
	}
	return n
}

func ready(p *corev1.Pod) bool {
	for _, c := range p.Status.Conditions {
		if c.Type == corev1.PodReady {
			return c.Status == corev1.ConditionTrue && p.DeletionTimestamp == nil
		}
	}
	return false
}

// awaitPod waits until one pod is ready.
func awaitPod(ctx context.Context, client kubernetes.Interface, name string) error {
	return poll(ctx, func(ctx context.Context) (bool, string, error) {
		p, err := client.CoreV1().Pods(metav1.NamespaceDefault).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, "", err
		}
		return ready(p), describe([]corev1.Pod{*p}), nil
	})
}

// awaitDaemonSet waits until the DaemonSet has a ready pod on each node, and returns on how many.
func awaitDaemonSet(ctx context.Context, client kubernetes.Interface, namespace, name string) (nodes int32, err error) {
	err = poll(ctx, func(ctx context.Context) (bool, string, error) {
		d, err := client.AppsV1().DaemonSets(namespace).Get(ctx, name, metav1.GetOptions{})
		if err != nil {
			return false, "", err
		}
		want, have := d.Status.DesiredNumberScheduled, d.Status.NumberReady
		if d.Status.ObservedGeneration >= d.Generation && want > 0 && have == want {
			nodes = have
			return true, "", nil
		}
		selector := metav1.FormatLabelSelector(d.Spec.Selector)
		pods, err := client.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{LabelSelector: selector})
		if err != nil {
			return false, "", err
		}
		return false, fmt.Sprintf("%d of %d ready: %s", have, want, describe(pods.Items)), nil
	})
	return nodes, err
}
