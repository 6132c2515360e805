package kubeproxy

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/kubeproxy/config"
)

// Bounds of removing a taint.
const (
	taintAttempts = 12          // with the pauses between them: for six minutes
	minTaintRetry = time.Second // pause after the first failure; it doubles
	maxTaintRetry = time.Minute // longest pause
	taintTimeout  = 10 * time.Second
)

// isMeant tells whether it is this taint of the node that is meant. An empty Value or Effect matches any.
func isMeant(t config.Taint, of corev1.Taint) bool {
	return of.Key == t.Key && (t.Value == "" || t.Value == of.Value) && (t.Effect == "" || t.Effect == string(of.Effect))
}

// removeTaint takes the taint off the node. It may be repeated; a node without it is left alone. It blocks until that is
// done, the context ends, the API server forbids it, or twelve attempts have failed. It needs leave to get and patch the
// node.
func removeTaint(ctx context.Context, client kubernetes.Interface, node string, taint config.Taint) error {
	retry := minTaintRetry
	for attempt := 1; ; attempt++ {
		err := tryRemoveTaint(ctx, client, node, taint)
		if err == nil || ctx.Err() != nil {
			return nil
		}
		if attempt == taintAttempts || apierrors.IsForbidden(err) {
			return fmt.Errorf("remove taint %s from node %s: %w", taint.Key, node, err)
		}
		select {
		case <-ctx.Done():
			return nil
		case <-time.After(retry):
			retry = min(2*retry, maxTaintRetry)
		}
	}
}

// tryRemoveTaint replaces the list of taints, unless the node has changed since it was read.
func tryRemoveTaint(ctx context.Context, client kubernetes.Interface, node string, taint config.Taint) error {
	ctx, cancel := context.WithTimeout(ctx, taintTimeout)
	defer cancel()
	n, err := client.CoreV1().Nodes().Get(ctx, node, metav1.GetOptions{})
	if err != nil {
		return err
	}
	kept := slices.DeleteFunc(slices.Clone(n.Spec.Taints), func(of corev1.Taint) bool { return isMeant(taint, of) })
	if len(kept) == len(n.Spec.Taints) {
		return nil
	}
	if n.ResourceVersion == "" {
		return errors.New("the node has no resource version")
	}
	patch, err := json.Marshal(map[string]any{
		"metadata": map[string]any{"resourceVersion": n.ResourceVersion},
		"spec":     map[string]any{"taints": kept},
	})
	if err != nil {
		return err
	}
	_, err = client.CoreV1().Nodes().Patch(ctx, node, types.MergePatchType, patch, metav1.PatchOptions{})
	return err
}
