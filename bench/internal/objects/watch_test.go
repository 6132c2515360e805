package objects_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	discoveryv1 "k8s.io/api/discovery/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/kubernetes/fake"
	k8stesting "k8s.io/client-go/testing"

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

// streams is a fake API whose watches the test ends.
type streams struct {
	client *fake.Clientset
	opened chan *stream
}

type stream struct {
	*watch.FakeWatcher
	from string // the version
}

func newStreams() *streams {
	s := &streams{client: fake.NewClientset(), opened: make(chan *stream, 100)}
	s.client.PrependWatchReactor("endpointslices", func(a k8stesting.Action) (bool, watch.Interface, error) {
		st := &stream{watch.NewFake(), a.(k8stesting.WatchActionImpl).ListOptions.ResourceVersion}
		s.opened <- st
		return true, st, nil
	})
	return s
}

// next is the next watch that is opened; it must begin at a version.
func (s *streams) next(t *testing.T, from string) *stream {
	t.Helper()
	select {
	case st := <-s.opened:
		if st.from != from {
			t.Errorf("the watch begins at version %q, want %q", st.from, from)
		}
		return st
	case <-time.After(10 * time.Second):
		t.Fatal("no watch is opened")
		return nil
	}
}

func version(v string) *discoveryv1.EndpointSlice {
	slice := objects.Slice(0, world.A)
	slice.ResourceVersion = v
	return slice
}

func TestWatchGoesOnWhereItWasCut(t *testing.T) {
	s := newStreams()
	w, err := objects.StartWatch(t.Context(), s.client)
	if err != nil {
		t.Fatal(err)
	}
	st := s.next(t, "1") // that of the fake's list
	for _, v := range []string{"41", "42", "43"} {
		st.Modify(version(v))
		st.Stop() // as an API server does after some time
		if _, err := w.Await(t.Context(), v); err != nil {
			t.Fatal(err)
		}
		st = s.next(t, v)
	}
}

func TestWatchListsWhatTheServerHasForgotten(t *testing.T) {
	s := newStreams()
	lists := []*discoveryv1.EndpointSliceList{
		{ListMeta: metav1.ListMeta{ResourceVersion: "60"}},
		{ListMeta: metav1.ListMeta{ResourceVersion: "70"}, Items: []discoveryv1.EndpointSlice{*version("66")}},
	}
	s.client.PrependReactor("list", "endpointslices", func(k8stesting.Action) (bool, runtime.Object, error) {
		next := lists[0]
		lists = lists[1:]
		return true, next, nil
	})
	w, err := objects.StartWatch(t.Context(), s.client)
	if err != nil {
		t.Fatal(err)
	}
	expired := apierrors.NewResourceExpired("too old").Status()
	s.next(t, "60").Error(&expired)
	if _, err := w.Await(t.Context(), "66"); err != nil {
		t.Errorf("what changed meanwhile: %v", err)
	}
	s.next(t, "70").Modify(version("71"))
	if _, err := w.Await(t.Context(), "71"); err != nil {
		t.Errorf("what changed then: %v", err)
	}
}

func TestWatchGivesUp(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := newStreams()
		w, err := objects.StartWatch(t.Context(), s.client)
		if err != nil {
			t.Fatal(err)
		}
		go func() {
			for range 10 {
				(<-s.opened).Stop()
			}
		}()
		if at, err := w.Await(t.Context(), "1"); err == nil {
			t.Errorf("got %v without a watch", at)
		}
	})
}
