package https

import (
	"hash/maphash"
	"maps"
	"net/http"
	"net/netip"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	flowcontrolv1 "k8s.io/api/flowcontrol/v1"
	"k8s.io/apiserver/pkg/endpoints/request"

	"varco.dev/internal/httpproxy/vouch"
)

const (
	// mostBusy bounds how long a backend is left out, whatever it says.
	mostBusy = 10 * time.Second
	// sweepPeriod is how often what is over is looked for.
	sweepPeriod = time.Second
	// mostTurnedAway bounds the clients that backends are left out for. What more there are meet a 429 at times.
	mostTurnedAway = 4096
)

// busy knows the backends that turn requests away: those of all clients, or those of one.
type busy struct {
	seed  maphash.Seed
	any   atomic.Bool // there is one, or was
	infos *request.RequestInfoFactory

	mu      sync.Mutex // guards the maps
	all     map[netip.AddrPort]pause
	clients map[client]map[netip.AddrPort]pause
	swept   time.Time
}

// client is the hash of what a client shows of itself.
type client uint64

// pause is for how long a backend is left out.
type pause struct {
	until time.Time
	ends  bool // it ends: streams are not for it either
}

func newBusy() *busy {
	return &busy{
		seed: maphash.MakeSeed(), infos: vouch.NewInfos(),
		all: map[netip.AddrPort]pause{}, clients: map[client]map[netip.AddrPort]pause{},
	}
}

// clientOf returns who asks, as far as that can be told here.
func (b *busy) clientOf(r *http.Request) client {
	var h maphash.Hash
	h.SetSeed(b.seed)
	h.WriteString(r.Header.Get("Authorization"))
	if r.TLS != nil && len(r.TLS.PeerCertificates) > 0 {
		h.Write(r.TLS.PeerCertificates[0].Raw)
	}
	return client(h.Sum64())
}

// note looks at an answer of code 429, and says whether the backend is to be left out. Those in plain text come from the filters
// that look at all requests: priority and fairness, the bound of requests in flight, and the end of the server, which closes
// its connections. A Status is about one object, such as a pod that must not be evicted now. Priority and fairness says so in
// its own header, and is about the client: what one asks too often must not drive the others together on fewer backends. Nobody
// else may say so: what a pod answers through the API server means nothing here, or its owner would take backends out for all.
func (b *busy) note(backend netip.AddrPort, r *http.Request, resp *http.Response) bool {
	seconds, err := strconv.Atoi(resp.Header.Get("Retry-After"))
	if err != nil || seconds <= 0 || !strings.HasPrefix(resp.Header.Get("Content-Type"), "text/plain") || b.passesOn(r) {
		return false
	}
	p := pause{time.Now().Add(min(time.Duration(seconds)*time.Second, mostBusy)), resp.Close}
	b.mu.Lock()
	defer b.mu.Unlock()
	b.any.Store(true)
	if resp.Header.Get(flowcontrolv1.ResponseHeaderMatchedPriorityLevelConfigurationUID) == "" || p.ends {
		b.all[backend] = p
		return true
	}
	who := b.clientOf(r)
	if b.clients[who] == nil {
		if len(b.clients) >= mostTurnedAway {
			b.sweep(time.Now())
		}
		if len(b.clients) >= mostTurnedAway {
			return false
		}
		b.clients[who] = map[netip.AddrPort]pause{}
	}
	b.clients[who][backend] = p
	return true
}

// passesOn tells whether the API server does not answer a request itself but a pod, a Service or a kubelet. Such requests may
// last (controlplane/apiserver/config.go), which is why none of the filters turns them away but the one for the end.
func (b *busy) passesOn(r *http.Request) bool {
	info, err := b.infos.NewRequestInfo(r)
	if err != nil || info.Verb == "proxy" {
		return true
	}
	return slices.Contains([]string{"attach", "exec", "log", "portforward", "proxy"}, info.Subresource)
}

// with returns backends that were tried, and those to be left out for a request of this kind.
func (b *busy) with(tried []netip.AddrPort, r *http.Request, k vouch.Kind) []netip.AddrPort {
	if !b.any.Load() {
		return tried
	}
	who := b.clientOf(r)
	b.mu.Lock()
	defer b.mu.Unlock()
	now, out := time.Now(), tried[:len(tried):len(tried)]
	for _, set := range [...]map[netip.AddrPort]pause{b.all, b.clients[who]} {
		for backend, p := range set {
			if now.Before(p.until) && (k == vouch.Ordinary || p.ends) {
				out = append(out, backend)
			}
		}
	}
	if now.Sub(b.swept) >= sweepPeriod {
		b.sweep(now)
	}
	return out
}

// sweep forgets what is over. The caller holds mu.
func (b *busy) sweep(now time.Time) {
	over := func(_ netip.AddrPort, p pause) bool { return !now.Before(p.until) }
	maps.DeleteFunc(b.all, over)
	for who, set := range b.clients {
		if maps.DeleteFunc(set, over); len(set) == 0 {
			delete(b.clients, who)
		}
	}
	b.any.Store(len(b.all)+len(b.clients) > 0)
	b.swept = now
}
