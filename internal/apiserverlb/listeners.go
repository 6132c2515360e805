package apiserverlb

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/netip"
	"reflect"
	"slices"
	"sync"
	"syscall"

	"varco.dev/internal/apiserverlb/config"
	"varco.dev/internal/apiserverlb/handover"
	"varco.dev/internal/apiserverlb/https"
	"varco.dev/internal/relay/loop"
)

// listeners are those that are open. They are safe for concurrent use.
type listeners struct {
	sockets *Sockets
	relay   *loop.Relay
	https   *https.Server // nil: there are none of that mode

	mu   sync.Mutex // guards the fields below
	open map[string]*listener
	over bool // none is opened any more
}

// listener is one that is open.
type listener struct {
	config config.Listener
	// keep is another descriptor of the socket that the relay has, for a successor. The kernel takes connections for as long as
	// there is one.
	keep *net.TCPListener
}

func newListeners(s *Sockets, relay *loop.Relay, https *https.Server) *listeners {
	if s == nil {
		s = &Sockets{}
	}
	return &listeners{sockets: s, relay: relay, https: https, open: map[string]*listener{}}
}

// apply has those open that are wanted, and no others; connections go on. If one cannot be opened, nothing is changed.
func (ls *listeners) apply(ctx context.Context, c *config.Config) error {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	if ls.over {
		return errStopped
	}
	next := map[string]*listener{}
	for _, l := range c.Listeners {
		if old := ls.open[l.Name]; old != nil && reflect.DeepEqual(old.config, l) {
			next[l.Name] = old
			continue
		}
		opened, err := ls.prepare(ctx, l)
		if err != nil {
			for name, n := range next {
				if n != ls.open[name] {
					n.keep.Close()
				}
			}
			return err
		}
		next[l.Name] = opened
	}
	return ls.swap(next)
}

// prepare opens the socket of a listener, or another descriptor of the one that is open at its address.
func (ls *listeners) prepare(ctx context.Context, l config.Listener) (*listener, error) {
	at, err := l.AddrPort()
	if err != nil {
		return nil, err
	}
	for _, old := range ls.open {
		if old.config.Address == l.Address || addrOf(old.keep) == at { // the first: systemd's may be anywhere
			keep, err := handover.Dup(old.keep)
			return &listener{config: l, keep: keep}, err
		}
	}
	keep, err := ls.sockets.take(ctx, l)
	if errors.Is(err, syscall.EADDRINUSE) && ls.overlap(at) {
		err = fmt.Errorf("%w: a listener that is open has a part of this address; to change from one to the other, end the balancer before it starts again", err)
	}
	return &listener{config: l, keep: keep}, err
}

// overlap says whether an open listener is in the way of another at all addresses, or the other way round.
func (ls *listeners) overlap(at netip.AddrPort) bool {
	for _, l := range ls.open {
		open := addrOf(l.keep)
		if open.Port() == at.Port() && (open.Addr().IsUnspecified() || at.Addr().IsUnspecified()) {
			return true
		}
	}
	return false
}

// swap puts listeners in the place of those that are open.
func (ls *listeners) swap(next map[string]*listener) (errs error) {
	for name, old := range ls.open {
		if next[name] != old {
			ls.close(name)
		}
	}
	for name, l := range next {
		if ls.open[name] == l {
			continue
		}
		if err := ls.serve(l); err != nil {
			errs = errors.Join(errs, fmt.Errorf("listener %s: %w", name, err), l.keep.Close())
			continue
		}
		ls.open[name] = l
	}
	return errs
}

// serve has the relay, or the server of requests, take connections of a listener.
func (ls *listeners) serve(l *listener) error {
	from, err := l.config.ProxyProtocol.Prefixes()
	if err != nil {
		return err
	}
	socket, err := handover.Dup(l.keep)
	if err != nil {
		return err
	}
	if l.config.Mode == config.ModeHTTPS {
		err := ls.https.Listen(https.Listener{
			Name: l.config.Name, Net: socket, CertFile: l.config.TLS.CertFile, KeyFile: l.config.TLS.KeyFile, ProxyFrom: from,
		})
		if err != nil {
			socket.Close() // it is ours still
		}
		return err
	}
	return ls.relay.Listen(loop.Listener{Name: l.config.Name, Net: socket, ProxyFrom: from, ProxyTo: l.config.ProxyProtocol.ToBackends})
}

// close closes a listener; its connections go on.
func (ls *listeners) close(name string) {
	l := ls.open[name]
	delete(ls.open, name)
	l.keep.Close()
	if l.config.Mode == config.ModeHTTPS {
		ls.https.Unlisten(name)
	} else {
		ls.relay.Unlisten(name)
	}
}

// closeAll closes all of them for good.
func (ls *listeners) closeAll() {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	ls.over = true
	for name := range ls.open {
		ls.close(name)
	}
}

// Listeners returns the listeners for a process that takes over.
func (lb *LB) Listeners() []handover.Listener { return lb.listeners.all() }

func (ls *listeners) all() (out []handover.Listener) {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	for name, l := range ls.open {
		out = append(out, handover.Listener{Name: name, Net: l.keep})
	}
	return out
}

func addrOf(l *net.TCPListener) netip.AddrPort {
	at := l.Addr().(*net.TCPAddr).AddrPort()
	return netip.AddrPortFrom(at.Addr().Unmap(), at.Port())
}

func (ls *listeners) states() []ListenerState {
	ls.mu.Lock()
	defer ls.mu.Unlock()
	out := []ListenerState{} // not null in JSON
	for _, name := range slices.Sorted(maps.Keys(ls.open)) {
		l := ls.open[name]
		out = append(out, ListenerState{Name: name, Address: addrOf(l.keep).String(), Mode: string(l.config.Mode)})
	}
	return out
}
