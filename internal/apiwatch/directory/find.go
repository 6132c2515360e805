package directory

import (
	"context"
	"fmt"
	"strings"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/validate/content"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/validation"

	"varco.dev/internal/service"
)

const (
	// syncPatience is how long a look-up waits for the first lists.
	syncPatience = 10 * time.Second
	// retryAfter is told to clients whose look-up could not be done, in seconds.
	retryAfter = 1
)

// find looks an object up, first among what is known.
func find[V any](ctx context.Context, d *Directory, known func(service.Name) *V, live *live[V], name service.Name) (*V, error) {
	if err := d.ready(ctx); err != nil {
		return nil, err
	}
	if v := known(name); v != nil {
		return v, nil
	}
	if err := live.check(name); err != nil {
		return nil, err
	}
	return live.lookup(ctx, name)
}

// ready waits for the first lists. Before them, a Service might be there without its endpoints.
func (d *Directory) ready(ctx context.Context) error {
	select {
	case <-d.synced:
		return nil
	default:
	}
	patience := time.NewTimer(syncPatience)
	defer patience.Stop()
	select {
	case <-d.synced:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("waiting for the first list of objects: %w", ctx.Err())
	case <-patience.C:
	}
	why := "it does not answer"
	if err := d.source.Contact.LastError(); err != nil {
		why = bare(err)
	}
	return unavailable("the API server has not listed all objects yet: %s", why)
}

// check refuses names that the API server would refuse, in its words, and those that are too long for any object.
func (l *live[V]) check(name service.Name) error {
	if name.Name == "" {
		return apierrors.NewBadRequest("Name parameter required.")
	}
	if bad := content.IsPathSegmentName(name.Name); len(bad) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("Name parameter invalid: %q: %s", name.Name, strings.Join(bad, ";")))
	}
	if bad := content.IsPathSegmentName(name.Namespace); len(bad) > 0 {
		return apierrors.NewBadRequest(fmt.Sprintf("Namespace parameter invalid: %q: %s", name.Namespace, strings.Join(bad, ";")))
	}
	if len(name.Name) > validation.DNS1123SubdomainMaxLength || len(name.Namespace) > validation.DNS1123LabelMaxLength {
		return apierrors.NewNotFound(l.resource, name.Name)
	}
	return nil
}

// unavailable returns a Status of 503 that says to try again soon.
func unavailable(format string, args ...any) *apierrors.StatusError {
	err := apierrors.NewServiceUnavailable(fmt.Sprintf(format, args...))
	err.ErrStatus.Details = &metav1.StatusDetails{RetryAfterSeconds: retryAfter}
	return err
}
