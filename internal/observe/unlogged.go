package observe

import (
	"context"

	"k8s.io/klog/v2"
)

// Unlogged returns a context whose requests client-go does not log, whatever its verbosity is.
func Unlogged(ctx context.Context) context.Context {
	return klog.NewContext(ctx, klog.New(nil))
}
