package feed

import (
	"errors"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"varco.dev/internal/service"
)

// Sink is what a reflector takes for its store. It keeps nothing: objects are converted and handed on, and where they go
// is their only copy. An informer would keep all objects a second time. All its functions are called by the reflector's
// goroutine, one at a time.
type Sink[O metav1.Object, S any] struct {
	source  *Source
	kind    string
	convert func(O) (S, bool, []error)

	Set     func(service.Name, S) // an object is new, or has changed
	Del     func(service.Name)    // an object is gone, or not ours any more; maybe it never was
	Replace func([]Item[S])       // these are all that there are

	complaints map[service.Name]string // what was logged of objects last

	once   sync.Once
	synced chan struct{} // closed by Settle
}

// Item is a converted object. One that is not ours to serve stands for none.
type Item[S any] struct {
	Name  service.Name
	Value S
	ours  bool
}

// Names returns the names of items.
func Names[S any](items []Item[S]) map[service.Name]struct{} {
	out := make(map[service.Name]struct{}, len(items))
	for _, i := range items {
		out[i.Name] = struct{}{}
	}
	return out
}

// store is the Sink as the reflector sees it.
type store[O metav1.Object, S any] struct{ *Sink[O, S] }

var _ cache.TransformingStore = store[metav1.Object, any]{}

// NewSink returns a sink for the objects of a kind, "Service" say; its functions are still to be set. What convert returns
// is the object, whether it is ours to serve, and what is wrong with it, which is logged.
func NewSink[O metav1.Object, S any](source *Source, kind string, convert func(O) (S, bool, []error)) *Sink[O, S] {
	return &Sink[O, S]{source: source, kind: kind, convert: convert, complaints: map[service.Name]string{}, synced: make(chan struct{})}
}

// Store returns the sink as a reflector wants it.
func (s *Sink[O, S]) Store() cache.TransformingStore { return store[O, S]{s} }

// Settle says that nothing is to be waited for any more.
func (s *Sink[O, S]) Settle() { s.once.Do(func() { close(s.synced) }) }

// Add hands a new object on.
func (s store[O, S]) Add(obj any) error {
	i, err := s.item(obj)
	if err != nil {
		return err
	}
	s.source.seen(s.kind)
	if i.ours {
		s.Set(i.Name, i.Value)
	} else {
		s.Del(i.Name)
	}
	return nil
}

// Update hands a changed object on.
func (s store[O, S]) Update(obj any) error { return s.Add(obj) }

// Delete hands on that an object is gone.
func (s store[O, S]) Delete(obj any) error {
	o, ok := obj.(O)
	if !ok {
		return fmt.Errorf("%s gone: got a %T", s.kind, obj)
	}
	s.source.seen(s.kind)
	delete(s.complaints, nameOf(o))
	s.Del(nameOf(o))
	return nil
}

// Replace hands a whole list on: what is not in it is gone.
func (s store[O, S]) Replace(list []any, _ string) error {
	items := make([]Item[S], 0, len(list))
	for _, obj := range list {
		i, err := s.item(obj)
		if err != nil {
			return err
		}
		s.source.seen(s.kind)
		if i.ours {
			items = append(items, i)
		}
	}
	s.Sink.Replace(items)
	s.Settle()
	return nil
}

// Resync does nothing: where objects go, nothing is forgotten.
func (s store[O, S]) Resync() error { return nil }

// Transformer has the reflector convert objects while they stream in, so that a first list of many is never there as a
// whole. What it makes is what Replace gets.
func (s store[O, S]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) { return s.item(obj) }
}

// item converts an object, unless it was already.
func (s *Sink[O, S]) item(obj any) (Item[S], error) {
	switch o := obj.(type) {
	case Item[S]:
		return o, nil
	case O:
		value, ours, problems := s.convert(o)
		s.complain(o, problems)
		return Item[S]{nameOf(o), value, ours}, nil
	}
	return Item[S]{}, fmt.Errorf("%s: got a %T", s.kind, obj)
}

const (
	// maxComplaint bounds what is logged of an object, in bytes: whoever may write one may put a quarter of a MiB into its
	// annotations, again and again.
	maxComplaint = 2000
	// maxComplaints bounds the objects of a kind of which it is remembered what was logged.
	maxComplaints = 1000
)

// complain logs what is wrong with an object, once while that is the same; the rest of it is served.
func (s *Sink[O, S]) complain(obj O, problems []error) {
	err := errors.Join(problems...)
	if err == nil {
		delete(s.complaints, nameOf(obj))
		return
	}
	text := short(err.Error())
	if s.complaints[nameOf(obj)] == text {
		return
	}
	if len(s.complaints) >= maxComplaints {
		clear(s.complaints)
	}
	s.complaints[nameOf(obj)] = text
	s.source.Log.Warn("leaves out a part of an object that is not valid",
		"kind", s.kind, "namespace", obj.GetNamespace(), "name", obj.GetName(), "error", text)
}

func nameOf(o metav1.Object) service.Name {
	return service.Name{Namespace: o.GetNamespace(), Name: o.GetName()}
}

func short(text string) string {
	if len(text) <= maxComplaint {
		return text
	}
	return fmt.Sprintf("%s… (%d bytes more)", text[:maxComplaint], len(text)-maxComplaint)
}
