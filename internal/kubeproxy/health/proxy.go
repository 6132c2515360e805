package health

import (
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"slices"
	"time"

	"varco.dev/internal/apiwatch"
	"varco.dev/internal/observe"
	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// toBeDeleted is the taint of a node that the cluster autoscaler is about to remove (KEP-3836).
const toBeDeleted = "ToBeDeletedByClusterAutoscaler"

// Eligible tells whether a node is to take traffic of load balancers: it is there, not being deleted, and not about to be
// removed by the cluster autoscaler.
func Eligible(n apiwatch.Node) bool {
	return n.Exists && !n.Deleting && !slices.Contains(n.Taints, toBeDeleted)
}

// Config of a Proxy.
type Config struct {
	State    func() reconcile.Health     // required: of the loop that applies changes
	Families []service.Family            // that are served; all have the same state, one transaction serves them
	Eligible func() bool                 // required: whether this node is to take traffic, as Eligible says of its Node object
	Timeout  time.Duration               // for how long a change may wait to be applied; 0: reconcile.DefaultStuckAfter
	Answered func(path string, code int) // optional: called after each answer of /healthz and /livez
}

// Proxy is the health of the proxy as a whole. It is safe for concurrent use.
type Proxy struct{ config Config }

// NewProxy returns the health of the proxy.
func NewProxy(c Config) *Proxy {
	if c.Timeout == 0 {
		c.Timeout = reconcile.DefaultStuckAfter
	}
	if c.Answered == nil {
		c.Answered = func(string, int) {}
	}
	return &Proxy{config: c}
}

// Healthy tells whether no change has been waiting for too long.
func (p *Proxy) Healthy() bool { return p.healthy(p.config.State()) }

func (p *Proxy) healthy(h reconcile.Health) bool {
	return h.PendingFrom.IsZero() || time.Since(h.PendingFrom) < p.config.Timeout
}

// Handler answers /healthz, /livez and /readyz. The first two are kube-proxy's, to the letter (KEP-3458, KEP-3836):
// /healthz fails while a change waits for too long or the node is not to take traffic, /livez only for the former. /readyz
// fails, with a reason as text, until all was applied once.
func (p *Proxy) Handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		eligible := p.config.Eligible()
		p.answer(w, "/healthz", &eligible)
	})
	mux.HandleFunc("/livez", func(w http.ResponseWriter, _ *http.Request) { p.answer(w, "/livez", nil) })
	mux.Handle("/readyz", observe.Check(p.ready))
	return mux
}

func (p *Proxy) ready() error {
	h := p.config.State()
	if h.Synced {
		return nil
	}
	return errors.Join(errors.New("not all Services are applied yet"), h.Err)
}

// body is the JSON of an answer.
type body struct {
	LastUpdated  time.Time             `json:"lastUpdated"`
	CurrentTime  time.Time             `json:"currentTime"`
	NodeEligible *bool                 `json:"nodeEligible,omitempty"`
	Healthy      bool                  `json:"healthy"`
	Status       map[string]familyBody `json:"status,omitempty"`
}

type familyBody struct {
	LastUpdated time.Time `json:"lastUpdated"`
	Healthy     bool      `json:"healthy"`
}

func (p *Proxy) answer(w http.ResponseWriter, path string, eligible *bool) {
	state := p.config.State()
	now := time.Now().UTC()
	b := body{
		LastUpdated: state.LastSuccess.UTC(), CurrentTime: now, NodeEligible: eligible,
		Healthy: p.healthy(state), Status: p.families(state),
	}
	code := http.StatusOK
	if !b.Healthy || eligible != nil && !*eligible {
		code = http.StatusServiceUnavailable
	} else {
		b.LastUpdated = now // what is healthy is up to date: upstream keeps this for those who compare times
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(code)
	text, _ := json.Marshal(b) // nothing in it can fail
	_, _ = w.Write(text)       // a client that is gone needs no answer
	p.config.Answered(path, code)
}

// families returns the state by family, none before the first success.
func (p *Proxy) families(state reconcile.Health) map[string]familyBody {
	if state.LastSuccess.IsZero() {
		return nil
	}
	out := map[string]familyBody{}
	for _, f := range p.config.Families {
		out[fmt.Sprintf("IPv%d", f)] = familyBody{LastUpdated: state.LastSuccess.UTC(), Healthy: p.healthy(state)}
	}
	return out
}
