package apiserverlb

import (
	"context"
	"fmt"
	"log/slog"
	"net"

	"varco.dev/internal/apiserverlb/config"
	"varco.dev/internal/apiserverlb/handover"
)

// Sockets are listeners that are open already: those of the process before, or of systemd.
type Sockets struct {
	Given  []handover.Listener
	ByName bool // they may be known by their names, as systemd's are, not only by their addresses
}

// take returns a listener of those given, or opens one.
func (s *Sockets) take(ctx context.Context, l config.Listener) (*net.TCPListener, error) {
	addr, err := l.AddrPort()
	if err != nil {
		return nil, err
	}
	given, rest := handover.Claim(s.Given, l.Name, addr, s.ByName)
	if s.Given = rest; given != nil {
		return given, nil
	}
	opened, err := handover.Open(ctx, addr)
	if err != nil {
		return nil, fmt.Errorf("listener %s: %w", l.Name, err)
	}
	return opened, nil
}

// closeSpare closes sockets that were given and that no listener has: the kernel would go on taking connections, which nobody
// would serve. Those of systemd it has open itself; another listener may have them later.
func (ls *listeners) closeSpare(log *slog.Logger) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for _, given := range ls.sockets.Given {
		log.Warn("a socket that is open already belongs to no listener", "name", given.Name, "address", addrOf(given.Net))
	}
	if ls.sockets.ByName {
		return
	}
	for _, given := range ls.sockets.Given {
		given.Net.Close()
	}
	ls.sockets.Given = nil
}
