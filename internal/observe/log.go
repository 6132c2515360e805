package observe

import (
	"flag"
	"io"
	"log/slog"
	"strconv"
	"time"

	"k8s.io/klog/v2"
)

// FormatJSON is the format of NewLog that writes objects; every other one writes lines of key=value.
const FormatJSON = "json"

// NewLog returns a logger that writes to w. verbosity counts as Kubernetes' -v does: from 4 on, messages about single
// objects are written, which are slog's debug messages. The Kubernetes libraries' own messages go the same way, with the
// same verbosity, until NewLog is called again.
//
// In FormatJSON, messages have Kubernetes' keys for those who collect them: ts in milliseconds since 1970, msg, and v,
// the verbosity from which on they are written. Warnings and errors have a level in the place of v.
//
// The function returned sets another verbosity, for both.
func NewLog(w io.Writer, format string, verbosity int) (log *slog.Logger, set func(verbosity int)) {
	level := &slog.LevelVar{}
	options := &slog.HandlerOptions{Level: level}
	var handler slog.Handler = slog.NewTextHandler(w, options)
	if format == FormatJSON {
		options.ReplaceAttr = kubernetesKeys
		handler = slog.NewJSONHandler(w, options)
	}
	log = slog.New(handler)
	set = func(verbosity int) {
		// slog's levels go down by one for each verbosity (klog's bridge does the same): 4 is debug.
		level.Set(slog.LevelInfo - slog.Level(verbosity))
		verbosityOfKlog(verbosity)
	}
	set(verbosity)
	klog.SetSlogLogger(log.With("component", "client-go"))
	return log, set
}

// verbosityOfKlog sets klog's own verbosity, which it asks before it hands a message on, and which only a flag can set.
func verbosityOfKlog(verbosity int) {
	var flags flag.FlagSet
	klog.InitFlags(&flags)
	if err := flags.Set("v", strconv.Itoa(verbosity)); err != nil {
		panic(err) // a number is what the flag wants
	}
}

// kubernetesKeys names what slog adds to each message as k8s.io/component-base/logs/json does.
func kubernetesKeys(groups []string, a slog.Attr) slog.Attr {
	if len(groups) > 0 {
		return a
	}
	switch a.Key {
	case slog.TimeKey:
		if t, ok := a.Value.Any().(time.Time); ok {
			return slog.Float64("ts", float64(t.UnixMicro())/1000)
		}
	case slog.LevelKey:
		if level, ok := a.Value.Any().(slog.Level); ok && level <= slog.LevelInfo {
			return slog.Int("v", int(slog.LevelInfo-level))
		}
	}
	return a
}
