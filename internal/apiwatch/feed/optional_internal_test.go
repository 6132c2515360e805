package feed

import (
	"context"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/watch"
)

// answers lists nothing; its answers are played one after the other, the last one again and again.
type answers struct {
	errs  []error
	asked int
}

func (a *answers) List(context.Context, metav1.ListOptions) (*corev1.NodeList, error) {
	a.asked++
	err := a.errs[min(a.asked, len(a.errs))-1]
	return &corev1.NodeList{}, err
}

func (a *answers) Watch(context.Context, metav1.ListOptions) (watch.Interface, error) {
	return nil, errors.New("is not asked for")
}

// TestUntilListed waits for lists that are refused at first.
func TestUntilListed(t *testing.T) {
	const patience = time.Hour - 30*time.Second
	nodes := schema.GroupResource{Resource: "nodes"}
	forbidden, missing, broken := apierrors.NewForbidden(nodes, "", nil), apierrors.NewNotFound(nodes, ""), errors.New("connection refused")
	for _, c := range []struct {
		name    string
		errs    []error
		listed  bool
		refused int
		after   time.Duration
		silent  bool // the API server counts as one that does not answer
	}{
		{"at once", []error{nil}, true, 0, 0, false},
		{"forbidden, then allowed", []error{forbidden, forbidden, nil}, true, 2, 2 * time.Minute, false},
		{"missing, then there", []error{missing, nil}, true, 1, time.Minute, false},
		{"no answer, then one", []error{broken, nil}, true, 0, errorRetry, false},
		{"never allowed", []error{forbidden}, false, 60, patience, false},
		{"never an answer", []error{broken}, false, 0, patience, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				source := NewSource(nil, slog.New(slog.DiscardHandler))
				ctx, cancel := context.WithTimeout(t.Context(), patience)
				defer cancel()
				refused, began := 0, time.Now()
				listed := untilListed(ctx, source, "Node", &answers{errs: c.errs}, time.Minute, func(error) { refused++ })
				if took := time.Since(began); listed != c.listed || refused != c.refused || took != c.after {
					t.Errorf("listed %t, refused %d times, after %v", listed, refused, took)
				}
				if since, _ := source.Contact.Lost(); since.IsZero() == c.silent {
					t.Errorf("lost since %v", since)
				}
			})
		})
	}
}
