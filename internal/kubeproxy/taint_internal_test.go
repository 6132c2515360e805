package kubeproxy

import (
	"errors"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/google/go-cmp/cmp"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/kubernetes/fake"
	clienttest "k8s.io/client-go/testing"

	"varco.dev/internal/kubeproxy/config"
)

func TestRemoveTaint(t *testing.T) {
	a := corev1.Taint{Key: "a", Value: "1", Effect: corev1.TaintEffectNoSchedule}
	b := corev1.Taint{Key: "a", Value: "1", Effect: corev1.TaintEffectNoExecute}
	c := corev1.Taint{Key: "c", Effect: corev1.TaintEffectNoSchedule}
	for _, row := range []struct {
		taint   config.Taint
		want    []corev1.Taint
		patches int
	}{
		{config.Taint{Key: "a"}, []corev1.Taint{c}, 1},
		{config.Taint{Key: "a", Effect: "NoExecute"}, []corev1.Taint{a, c}, 1},
		{config.Taint{Key: "a", Value: "1", Effect: "NoSchedule"}, []corev1.Taint{b, c}, 1},
		{config.Taint{Key: "a", Value: "2"}, []corev1.Taint{a, b, c}, 0},
		{config.Taint{Key: "x"}, []corev1.Taint{a, b, c}, 0},
	} {
		client := fake.NewClientset(&corev1.Node{
			ObjectMeta: metav1.ObjectMeta{Name: "node-1", ResourceVersion: "7"}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{a, b, c}, PodCIDR: "10.244.0.0/24"},
		})
		patches := 0
		client.PrependReactor("patch", "nodes", func(act clienttest.Action) (bool, runtime.Object, error) {
			patches++
			if p := string(act.(clienttest.PatchAction).GetPatch()); !strings.Contains(p, `"metadata":{"resourceVersion":"7"}`) {
				t.Errorf("%+v: the patch %s does not name the version that was read", row.taint, p)
			}
			return false, nil, nil
		})
		if err := removeTaint(t.Context(), client, "node-1", row.taint); err != nil {
			t.Errorf("%+v: %v", row.taint, err)
		}
		n, err := client.CoreV1().Nodes().Get(t.Context(), "node-1", metav1.GetOptions{})
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(row.want, n.Spec.Taints); diff != "" || patches != row.patches || n.Spec.PodCIDR == "" {
			t.Errorf("%+v: %d patches, -want +got:\n%s", row.taint, patches, diff)
		}
	}
}

// TestRemoveTaintTriesAgain fails by conflicts at first, then for ever, then by a refusal.
func TestRemoveTaintTriesAgain(t *testing.T) {
	conflict := apierrors.NewConflict(corev1.Resource("nodes"), "node-1", errors.New("changed"))
	for _, c := range []struct {
		err       error
		fail      int // so many attempts
		attempts  int
		succeeded bool
	}{
		{conflict, 3, 4, true},
		{conflict, 100, taintAttempts, false},
		{apierrors.NewForbidden(corev1.Resource("nodes"), "node-1", errors.New("no")), 100, 1, false},
	} {
		synctest.Test(t, func(t *testing.T) {
			client := fake.NewClientset(&corev1.Node{
				ObjectMeta: metav1.ObjectMeta{Name: "node-1", ResourceVersion: "7"}, Spec: corev1.NodeSpec{Taints: []corev1.Taint{{Key: "a"}}},
			})
			attempts := 0
			client.PrependReactor("patch", "nodes", func(clienttest.Action) (bool, runtime.Object, error) {
				attempts++
				return attempts <= c.fail, nil, c.err
			})
			err := removeTaint(t.Context(), client, "node-1", config.Taint{Key: "a"})
			if (err == nil) != c.succeeded || attempts != c.attempts {
				t.Errorf("%v: got %v after %d attempts", c.err, err, attempts)
			}
		})
	}
}
