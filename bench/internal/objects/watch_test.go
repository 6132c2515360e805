package objects_test

import (
	"context"
	"errors"
	"testing"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"varco.dev/bench/internal/objects"
	"varco.dev/bench/internal/world"
)

func TestWatchTellsWhen(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	client := fake.NewClientset()
	w, err := objects.StartWatch(ctx, client)
	if err != nil {
		t.Fatal(err)
	}
	slice := objects.Slice(0, world.A)
	slice.ResourceVersion = "41"
	before := time.Now()
	if _, err := client.DiscoveryV1().EndpointSlices(objects.Namespace).Create(ctx, slice, metav1.CreateOptions{}); err != nil {
		t.Fatal(err)
	}
	if at, err := w.Await(ctx, "41"); err != nil || at.Before(before) || at.After(time.Now()) {
		t.Errorf("got %v, %v, want a time since %v", at, err, before)
	}
}

func TestAwaitEndsWithItsContext(t *testing.T) {
	w, err := objects.StartWatch(t.Context(), fake.NewClientset())
	if err != nil {
		t.Fatal(err)
	}
	cause := errors.New("enough")
	ctx, cancel := context.WithCancelCause(t.Context())
	cancel(cause)
	if _, err := w.Await(ctx, "1"); !errors.Is(err, cause) {
		t.Errorf("got %v, want %v", err, cause)
	}
}

func TestAwaitTellsOfAWatchThatEnded(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	w, err := objects.StartWatch(ctx, fake.NewClientset())
	if err != nil {
		t.Fatal(err)
	}
	cancel()
	if at, err := w.Await(t.Context(), "1"); err == nil {
		t.Errorf("got %v without a watch", at)
	}
}
