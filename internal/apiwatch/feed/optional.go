package feed

import (
	"context"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
)

// errorRetry is the pause before an API server that did not answer is asked again whether objects can be listed.
const errorRetry = time.Second

// Optional returns a feed of the objects that the selectors name, for a kind that the API server may not have, or that a
// role may not let be read. Then absent is called, once, with its answer; there is nothing to be waited for, and it is
// asked again after each pause of retry. A reflector would ask on and on, and log each time.
func Optional[O metav1.Object, S any, L runtime.Object](
	source *Source, sink *Sink[O, S], example O, client Lister[L], selectors metav1.ListOptions,
	retry time.Duration, absent func(error),
) Feed {
	told := false
	refused := func(err error) {
		if !told {
			told = true
			absent(err)
		}
		sink.Settle()
	}
	feed := Reflect(source, sink, example, client, selectors)
	reflect := feed.Run
	feed.Run = func(ctx context.Context) {
		if untilListed(ctx, source, sink.kind, client, retry, refused) {
			reflect(ctx)
		}
	}
	return feed
}

// untilListed returns true once objects can be listed, false if the context ends before. It calls refused when the API
// server says that they cannot.
func untilListed[L runtime.Object](
	ctx context.Context, source *Source, kind string, client Lister[L], retry time.Duration, refused func(error),
) bool {
	for ctx.Err() == nil {
		source.Contact.Begin(kind)
		_, err := client.List(ctx, metav1.ListOptions{Limit: 1})
		switch {
		case apierrors.IsNotFound(err), apierrors.IsForbidden(err):
			source.Contact.End(kind, nil)
			refused(err)
			pause(ctx, retry)
		case err != nil:
			source.Contact.End(kind, err)
			pause(ctx, errorRetry)
		default:
			source.Contact.End(kind, nil)
			return true
		}
	}
	return false
}

// pause waits, but not beyond the end of the context.
func pause(ctx context.Context, d time.Duration) {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-ctx.Done():
	case <-timer.C:
	}
}
