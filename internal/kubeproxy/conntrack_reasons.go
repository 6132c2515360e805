package kubeproxy

import (
	"maps"
	"net/netip"
	"slices"

	"varco.dev/internal/service"
)

// reasons say which flows have become stale. The zero value is none.
type reasons struct {
	whole  bool                // judge every flow by the state as it is
	scopes scopes              // where flows are to be looked for
	gone   map[loss]bool       // endpoints that flows must leave
	ports  map[target]newOrOld // frontends that are new, or no more
}

type loss struct {
	key      service.Key
	endpoint netip.AddrPort
}

type newOrOld bool

const (
	isNew newOrOld = true
	isOld newOrOld = false
)

// scopes are families and the protocols in them.
type scopes map[service.Family]map[service.Protocol]bool

func (s scopes) add(f service.Family, p service.Protocol) {
	if s[f] == nil {
		s[f] = map[service.Protocol]bool{}
	}
	s[f][p] = true
}

// of returns the protocols of a family, sorted.
func (s scopes) of(f service.Family) []service.Protocol { return slices.Sorted(maps.Keys(s[f])) }

func (w *reasons) empty() bool { return !w.whole && len(w.scopes) == 0 }

func (w *reasons) look(f service.Family, p service.Protocol) {
	if w.scopes == nil {
		w.scopes, w.gone, w.ports = scopes{}, map[loss]bool{}, map[target]newOrOld{}
	}
	w.scopes.add(f, p)
	if !w.whole && len(w.gone)+len(w.ports) > maxReasons {
		w.everything()
	}
}

// everything has every flow judged by the state alone. What is told on is only what that cannot tell: frontends that are
// no more.
func (w *reasons) everything() {
	w.whole = true
	clear(w.gone)
	maps.DeleteFunc(w.ports, func(_ target, n newOrOld) bool { return n == isNew })
	if len(w.ports) > maxReasons {
		clear(w.ports) // their flows end by their timeout
	}
}

func (w *reasons) opened(t target, f service.Family) {
	w.look(f, t.protocol)
	if !w.whole {
		w.ports[t] = isNew
	}
}

func (w *reasons) closed(t target, f service.Family) {
	w.look(f, t.protocol)
	if len(w.ports) <= maxReasons {
		w.ports[t] = isOld
	}
}

func (w *reasons) lost(k service.Key, endpoint netip.AddrPort) {
	w.look(k.Family, k.Protocol)
	if !w.whole {
		w.gone[loss{k, endpoint}] = true
	}
}

// add takes over the reasons of a walk that failed. What has changed since then counts more.
func (w *reasons) add(v reasons) {
	for f, protocols := range v.scopes {
		for p := range protocols {
			w.look(f, p)
		}
	}
	for l := range v.gone {
		w.lost(l.key, l.endpoint)
	}
	for t, n := range v.ports {
		if _, newer := w.ports[t]; !newer {
			w.ports[t] = n
		}
	}
	if v.whole {
		w.everything()
	}
}

func (w *reasons) isOpened(t target) bool {
	n, known := w.ports[t]
	return w.whole || known && n == isNew
}

func (w *reasons) isClosed(t target) bool {
	n, known := w.ports[t]
	return known && n == isOld
}

func (w *reasons) isLost(k service.Key, endpoint netip.AddrPort) bool {
	return w.whole || w.gone[loss{k, endpoint}]
}
