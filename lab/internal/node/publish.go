package node

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"slices"
	"time"

	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/resourceversion"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

// Back-off of requests that the API server did not accept.
const (
	firstRetry = 100 * time.Millisecond
	maxRetry   = 5 * time.Second
)

// publish sends the pod's status after each change until ctx ends. Changes that come while one is being sent go
// together with the next.
func (p *pod) publish(ctx context.Context) {
	for {
		select {
		case <-p.changed:
		case <-ctx.Done():
			return
		}
		p.retry(ctx, "send pod status", func() error { return p.sendStatus(ctx) })
	}
}

// maxRefusals is how often the API server may refuse a request until it is taken to be in earnest. The first refusals may
// be those of authorizers that do not know the pod yet.
const maxRefusals = 5

// retry calls fn until it succeeds, the object is gone, the API server refuses it for good or ctx ends.
func (p *pod) retry(ctx context.Context, what string, fn func() error) {
	refusals := 0
	for wait := firstRetry; ; wait = min(2*wait, maxRetry) {
		err := fn()
		if err == nil || apierrors.IsNotFound(err) || ctx.Err() != nil {
			return
		}
		if apierrors.IsInvalid(err) || apierrors.IsBadRequest(err) || apierrors.IsForbidden(err) {
			if refusals++; refusals == maxRefusals {
				p.log.Error("API request refused", "what", what, "err", err)
				return
			}
		}
		p.log.Warn("API request will be tried again", "what", what, "err", err)
		if !sleep(ctx, wait) {
			return
		}
	}
}

// sendStatus makes the status in the API that of the record. It sends nothing if nothing changed.
func (p *pod) sendStatus(ctx context.Context) error {
	if p.before {
		return nil
	}
	p.mu.Lock()
	base := p.api
	want := statusOf(base, &p.rec, time.Now())
	p.mu.Unlock()
	patch, err := statusPatch(base, want)
	if err != nil {
		return fmt.Errorf("compare status: %w", err)
	}
	if patch == nil {
		return nil
	}
	got, err := p.agent.cfg.Client.CoreV1().Pods(base.Namespace).
		Patch(ctx, base.Name, types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
	if apierrors.IsConflict(err) { // another pod has the name now
		return nil
	}
	if err != nil {
		return err
	}
	p.learn(got)
	return nil
}

// statusPatch returns the patch from the status of a pod to another, nil if they are the same. It touches the agent's
// conditions only, and fails with a conflict if the pod is not the one with this UID.
func statusPatch(pod *v1.Pod, want v1.PodStatus) ([]byte, error) {
	from := v1.Pod{Status: ownPart(pod.Status)}
	to := v1.Pod{Status: ownPart(want)}
	a, err := json.Marshal(from)
	if err != nil {
		return nil, err
	}
	b, err := json.Marshal(to)
	if err != nil || bytes.Equal(a, b) {
		return nil, err
	}
	to.UID = pod.UID
	if b, err = json.Marshal(to); err != nil {
		return nil, err
	}
	return strategicpatch.CreateTwoWayMergePatch(a, b, v1.Pod{})
}

func ownPart(s v1.PodStatus) v1.PodStatus {
	s.Conditions = slices.DeleteFunc(slices.Clone(s.Conditions), func(c v1.PodCondition) bool { return !isOwn(c.Type) })
	slices.SortFunc(s.Conditions, func(a, b v1.PodCondition) int {
		return slices.Index(ownConditions[:], a.Type) - slices.Index(ownConditions[:], b.Type)
	})
	return s
}

// learn keeps a pod that came from the API unless a later one is known, and returns the latest.
func (p *pod) learn(got *v1.Pod) *v1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	older, err := resourceversion.CompareResourceVersion(got.ResourceVersion, p.api.ResourceVersion)
	if err != nil || older >= 0 {
		p.api = got
	}
	return p.api
}

// remove ends the pod's object, which is waiting for its node to do so.
func (p *pod) remove(ctx context.Context) {
	obj := p.latest()
	zero := int64(0)
	p.retry(ctx, "delete pod", func() error {
		err := p.agent.cfg.Client.CoreV1().Pods(obj.Namespace).Delete(ctx, obj.Name, metav1.DeleteOptions{
			GracePeriodSeconds: &zero, Preconditions: &metav1.Preconditions{UID: &obj.UID},
		})
		if apierrors.IsConflict(err) {
			return nil
		}
		return err
	})
}
