package apiserverlb

import (
	"syscall"

	"varco.dev/internal/apiserverlb/config"
	"varco.dev/internal/relay/loop"
)

const (
	// ownFiles is how many descriptors are kept for all but connections: listeners, checks, the API, metrics, pipes.
	ownFiles = 256
	// perConnection is how many descriptors one takes: the client's and the backend's.
	perConnection = 2
)

// limits are those of the settings, as far as the process may open files: a connection that is turned away is better than one
// that has no backend.
func (lb *LB) limits(c *config.Config) loop.Limits {
	l := loop.Limits{Connections: c.Limits.Connections, PerSource: c.Limits.PerSource}
	var files syscall.Rlimit
	if err := syscall.Getrlimit(syscall.RLIMIT_NOFILE, &files); err != nil {
		files.Cur = 1 << 30 // not known
	}
	if most := max(1, (int(min(files.Cur, 1<<30))-ownFiles)/perConnection); l.Connections > most {
		lb.log.Warn("fewer connections than limits.connections are possible: raise the number of open files (ulimit -n, LimitNOFILE=)",
			"configured", l.Connections, "possible", most, "openFiles", files.Cur)
		l.Connections = most
	}
	lb.limit.Store(int64(l.Connections))
	return l
}
