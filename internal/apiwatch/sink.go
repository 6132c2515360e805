package apiwatch

import (
	"errors"
	"fmt"
	"sync"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/tools/cache"

	"varco.dev/internal/service"
)

// sink is what a reflector takes for its store. It keeps nothing: objects are converted and handed on to the table, which
// is their only copy. An informer would keep all objects a second time.
type sink[O metav1.Object, S any] struct {
	watcher *Watcher
	kind    string
	convert func(O) (S, bool, []error)

	set     func(service.Name, S)
	del     func(service.Name)
	replace func([]item[S])

	once   sync.Once
	synced chan struct{} // closed by settle
}

// item is a converted object. One that is not ours to serve stands for none.
type item[S any] struct {
	name  service.Name
	value S
	ours  bool
}

var _ cache.TransformingStore = (*sink[metav1.Object, any])(nil)

func newSink[O metav1.Object, S any](w *Watcher, kind string, convert func(O) (S, bool, []error)) *sink[O, S] {
	return &sink[O, S]{watcher: w, kind: kind, convert: convert, synced: make(chan struct{})}
}

// settle says that nothing is to be waited for any more.
func (s *sink[O, S]) settle() { s.once.Do(func() { close(s.synced) }) }

// Add hands a new object on.
func (s *sink[O, S]) Add(obj any) error {
	i, err := s.item(obj)
	if err != nil {
		return err
	}
	s.watcher.config.Seen(s.kind)
	if i.ours {
		s.set(i.name, i.value)
	} else {
		s.del(i.name)
	}
	return nil
}

// Update hands a changed object on.
func (s *sink[O, S]) Update(obj any) error { return s.Add(obj) }

// Delete hands on that an object is gone.
func (s *sink[O, S]) Delete(obj any) error {
	o, ok := obj.(O)
	if !ok {
		return fmt.Errorf("%s gone: got a %T", s.kind, obj)
	}
	s.watcher.config.Seen(s.kind)
	s.del(nameOf(o))
	return nil
}

// Replace hands a whole list on: what is not in it is gone.
func (s *sink[O, S]) Replace(list []any, _ string) error {
	items := make([]item[S], 0, len(list))
	for _, obj := range list {
		i, err := s.item(obj)
		if err != nil {
			return err
		}
		s.watcher.config.Seen(s.kind)
		if i.ours {
			items = append(items, i)
		}
	}
	s.replace(items)
	s.settle()
	return nil
}

// Resync does nothing: the table forgets nothing.
func (s *sink[O, S]) Resync() error { return nil }

// Transformer has the reflector convert objects while they stream in, so that a first list of many is never there as a
// whole. What it makes is what Replace gets.
func (s *sink[O, S]) Transformer() cache.TransformFunc {
	return func(obj any) (any, error) { return s.item(obj) }
}

// item converts an object, unless it was already.
func (s *sink[O, S]) item(obj any) (item[S], error) {
	switch o := obj.(type) {
	case item[S]:
		return o, nil
	case O:
		value, ours, problems := s.convert(o)
		s.complain(o, problems)
		return item[S]{nameOf(o), value, ours}, nil
	}
	return item[S]{}, fmt.Errorf("%s: got a %T", s.kind, obj)
}

// maxComplaint bounds what is logged of an object, in bytes: whoever may write one may put a quarter of a MiB into its
// annotations, again and again.
const maxComplaint = 2000

// complain logs what is wrong with an object; the rest of it is served.
func (s *sink[O, S]) complain(obj O, problems []error) {
	if err := errors.Join(problems...); err != nil {
		s.watcher.config.Log.Warn("leaves out a part of an object that is not valid",
			"kind", s.kind, "namespace", obj.GetNamespace(), "name", obj.GetName(), "error", short(err.Error()))
	}
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
