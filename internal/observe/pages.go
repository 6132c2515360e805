package observe

import (
	"encoding/json"
	"net/http"
	"net/http/pprof"
	"slices"
	"strings"
	"time"
)

// Pages is what a component shows of itself, at the paths and in the form of Kubernetes' components.
type Pages struct {
	Component string       // name on the pages, such as "kube-proxy"
	Version   string       // of the binary
	Started   time.Time    // of the process
	Metrics   http.Handler // required: /metrics
	// Texts are further pages by path, each of one plain text.
	Texts map[string]string
	// Config is /configz: the configuration in use by its API group. What it holds is encoded as JSON; nil: no such page.
	Config map[string]any
	// Flags is /flagz: the values of the command line by flag; nil: no such page.
	Flags map[string]string
	// Status has /statusz served.
	Status bool
	// Profiling has /debug/pprof and /debug/flags/v served. They let whoever asks see memory and slow down the process.
	Profiling bool
	// SetVerbosity changes the verbosity of the log to the number that is put at /debug/flags/v. Without it there is no such
	// page.
	SetVerbosity func(int)
}

// Handler returns the handler of all pages.
func (p Pages) Handler() http.Handler {
	mux := &listingMux{ServeMux: http.NewServeMux()}
	sli := newSLI(p.Started)
	mux.list("/healthz", sli.ping("healthz"))
	mux.list("/healthz/ping", Text("ok"))
	mux.list("/metrics", p.Metrics)
	mux.list("/metrics/slis", sli)
	for path, text := range p.Texts {
		mux.list(path, Text(text))
	}
	if p.Config != nil {
		mux.list("/configz", configz(p.Config))
	}
	if p.Flags != nil {
		mux.list("/flagz", p.flagz())
	}
	if p.Profiling {
		p.profile(mux)
	}
	if p.Status {
		mux.Handle("/statusz", p.statusz(mux.paths))
	}
	return mux
}

// listingMux remembers the paths that /statusz names.
type listingMux struct {
	*http.ServeMux
	paths []string // first parts, sorted
}

func (m *listingMux) list(path string, h http.Handler) {
	m.Handle(path, h)
	first := "/" + strings.Split(path, "/")[1]
	if i, found := slices.BinarySearch(m.paths, first); !found {
		m.paths = slices.Insert(m.paths, i, first)
	}
}

func (p Pages) profile(mux *listingMux) {
	mux.Handle("/debug/pprof", http.RedirectHandler("/debug/pprof/", http.StatusFound))
	mux.HandleFunc("/debug/pprof/", pprof.Index)
	mux.HandleFunc("/debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("/debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("/debug/pprof/trace", pprof.Trace)
	if p.SetVerbosity != nil {
		mux.Handle("/debug/flags/v", verbosity(p.SetVerbosity))
	}
}

func configz(config map[string]any) http.Handler { return JSON(func() any { return config }) }

// JSON returns a handler that answers what the value is then, in JSON.
func JSON(value func() any) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		b, err := json.Marshal(value())
		if err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
			return
		}
		w.Header().Set("Content-Type", "application/json")
		w.Header().Set("X-Content-Type-Options", "nosniff")
		_, _ = w.Write(b) // a client that is gone needs no answer
	})
}
