package observe

import (
	"io"
	"log/slog"

	"k8s.io/klog/v2"
)

// debugVerbosity is the first -v level, in Kubernetes' counting, at which messages per object are wanted.
const debugVerbosity = 4

// NewLog returns a logger that writes lines of key=value to w. verbosity counts as Kubernetes' -v does: from 4 on,
// messages about single objects are written. The Kubernetes libraries' own messages go the same way.
func NewLog(w io.Writer, verbosity int) *slog.Logger {
	level := slog.LevelInfo
	if verbosity >= debugVerbosity {
		level = slog.LevelDebug
	}
	log := slog.New(slog.NewTextHandler(w, &slog.HandlerOptions{Level: level}))
	klog.SetSlogLogger(log.With("component", "client-go"))
	return log
}
