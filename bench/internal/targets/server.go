package targets

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"os"
	"sync/atomic"
)

// Server serves all addresses from one process.
type Server struct {
	// Addresses of the targets, each with two ports: SmallPort answers every request with the same few bytes, PagePort
	// with what its path asks for.
	Addresses           []netip.Addr
	SmallPort, PagePort uint16
	// Ready is a file that is made as soon as all of them listen.
	Ready string
	Log   *slog.Logger

	small []atomic.Int64 // requests to SmallPort, of each address
}

// Run serves until ctx ends.
func (s *Server) Run(ctx context.Context) error {
	s.small = make([]atomic.Int64, len(s.Addresses))
	var open []net.Listener
	defer func() {
		for _, l := range open {
			_ = l.Close() // the process is about to end
		}
	}()
	pages := &http.Server{Handler: s.pages(), ErrorLog: slog.NewLogLogger(s.Log.Handler(), slog.LevelDebug)}
	for i, a := range s.Addresses {
		small, err := net.Listen("tcp", netip.AddrPortFrom(a, s.SmallPort).String())
		if err != nil {
			return err
		}
		open = append(open, small)
		page, err := net.Listen("tcp", netip.AddrPortFrom(a, s.PagePort).String())
		if err != nil {
			return err
		}
		open = append(open, page)
		go s.accept(small, &s.small[i])
		go func() {
			if err := pages.Serve(page); !errors.Is(err, net.ErrClosed) {
				s.Log.Error("serve pages", "error", err)
			}
		}()
	}
	if err := os.WriteFile(s.Ready, nil, 0o644); err != nil {
		return fmt.Errorf("tell that all targets listen: %w", err)
	}
	<-ctx.Done()
	return nil
}

// CountsPath is where PagePort tells how many requests have come to each SmallPort since the start.
const CountsPath = "/counts"

// Counts are numbers of requests by address.
type Counts map[netip.Addr]int64

func (s *Server) counts(w http.ResponseWriter, _ *http.Request) {
	out := Counts{}
	for i, a := range s.Addresses {
		out[a] = s.small[i].Load()
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(out) // the client is gone
}
