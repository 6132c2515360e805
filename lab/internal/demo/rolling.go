package demo

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"varco.dev/lab/internal/load"
)

const (
	// changing is about how long the changes themselves take.
	changing = 12 * time.Second
	// defaultPause is the quiet time before each change.
	defaultPause = 3 * time.Second
)

// rolling sends requests by all flows while the Deployment changes.
type rolling struct {
	console  *console
	client   kubernetes.Interface
	places   places
	flows    []check
	requests int
	pause    time.Duration // before each change

	done, failed atomic.Int64
	change       atomic.Pointer[string] // what is going on
}

// run returns the sum of all requests. The error is about the changes, not about requests.
func (r *rolling) run(ctx context.Context) (*load.Report, error) {
	if r.pause <= 0 {
		r.pause = defaultPause
	}
	g, ctx := errgroup.WithContext(ctx)
	hold := make(chan struct{})
	g.Go(func() error {
		defer close(hold)
		return r.changes(ctx)
	})
	sum := load.NewReport()
	for i, c := range r.flows {
		g.Go(func() error {
			report, err := load.Run(ctx, r.config(c, share(r.requests, len(r.flows), i), hold))
			if err == nil {
				sum.Add(report)
			}
			return err
		})
	}
	over := make(chan error, 1)
	go func() { over <- g.Wait() }()
	return sum, r.show(over)
}

// share is the i-th of n parts of a total, which differ by one at most.
func share(total, n, i int) int { return total*(i+1)/n - total*i/n }

func (r *rolling) config(c check, requests int, hold <-chan struct{}) load.Config {
	// They are spread over the time of all the changes, so that they go on through each.
	return load.Config{
		URL: c.url(), Dial: r.places[c.from].dial, Requests: requests, Hold: hold, Concurrency: 8,
		Rate: float64(requests) / (changing + 4*r.pause).Seconds(), Timeout: 10 * time.Second,
		Done: func(err error) {
			r.done.Add(1)
			if err != nil {
				r.failed.Add(1)
			}
		},
	}
}

// show keeps the status line up to date until all is over.
func (r *rolling) show(over <-chan error) error {
	tick := time.NewTicker(200 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case err := <-over:
			return err
		case <-tick.C:
			change := r.change.Load()
			if change == nil {
				change = new(string)
			}
			r.console.status("… %d of %d requests, %d failed  %s", r.done.Load(), r.requests, r.failed.Load(), *change)
		}
	}
}

// changes scales the Deployment up, deletes a pod, and scales it down, each when the one before is done.
func (r *rolling) changes(ctx context.Context) error {
	for _, c := range []struct {
		text string
		do   func(context.Context) error
	}{
		{"scale from 3 to 6", func(ctx context.Context) error { return r.scale(ctx, 6) }},
		{"delete a pod", r.deletePod},
		{"scale from 6 to 2", func(ctx context.Context) error { return r.scale(ctx, 2) }},
	} {
		if err := pause(ctx, r.pause); err != nil {
			return err
		}
		r.change.Store(&c.text)
		before := r.done.Load()
		err := r.console.step(c.text, func() (string, error) {
			err := c.do(ctx)
			return fmt.Sprintf("%d requests meanwhile, %d failed so far", r.done.Load()-before, r.failed.Load()), err
		})
		if err != nil {
			return err
		}
		r.change.Store(nil)
	}
	return nil
}

func pause(ctx context.Context, d time.Duration) error {
	select {
	case <-ctx.Done():
		return ctx.Err()
	case <-time.After(d):
		return nil
	}
}

// scale changes the number of replicas and waits until that many pods are ready and no other is left.
func (r *rolling) scale(ctx context.Context, replicas int) error {
	deployments := r.client.AppsV1().Deployments(metav1.NamespaceDefault)
	s, err := deployments.GetScale(ctx, "echo", metav1.GetOptions{})
	if err != nil {
		return err
	}
	s.Spec.Replicas = int32(replicas)
	if _, err := deployments.UpdateScale(ctx, "echo", s, metav1.UpdateOptions{}); err != nil {
		return err
	}
	_, err = awaitPods(ctx, r.client, "echo", replicas)
	return err
}

// deletePod deletes one pod with its grace period and waits until another has taken its place.
func (r *rolling) deletePod(ctx context.Context) error {
	pods, err := podsOf(ctx, r.client, "echo")
	if err != nil {
		return err
	}
	if len(pods) == 0 {
		return fmt.Errorf("find a pod to delete: there is none")
	}
	victim := pods[0].Name
	err = r.client.CoreV1().Pods(metav1.NamespaceDefault).Delete(ctx, victim, metav1.DeleteOptions{})
	if err != nil {
		return err
	}
	return poll(ctx, func(ctx context.Context) (bool, string, error) {
		now, err := podsOf(ctx, r.client, "echo")
		gone := !slices.ContainsFunc(now, func(p corev1.Pod) bool { return p.Name == victim })
		return gone && len(now) == len(pods) && countReady(now) == len(pods), describe(now), err
	})
}

// describe lists pods and their state, for messages.
func describe(pods []corev1.Pod) string {
	var texts []string
	for _, p := range pods {
		state := string(p.Status.Phase)
		switch {
		case p.DeletionTimestamp != nil:
			state = "terminating"
		case ready(&p):
			state = "ready"
		case len(p.Status.ContainerStatuses) > 0 && p.Status.ContainerStatuses[0].State.Waiting != nil:
			w := p.Status.ContainerStatuses[0].State.Waiting
			state = strings.TrimSpace(w.Reason + " " + w.Message)
		case p.Status.Message != "":
			state += " " + p.Status.Message
		}
		texts = append(texts, p.Name+" "+state)
	}
	if len(texts) == 0 {
		return "no pods"
	}
	return strings.Join(texts, ", ")
}
