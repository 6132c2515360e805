package httpproxy

import (
	"log/slog"
	"net/http"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// Defaults of Config.
const (
	DefaultMaxUpgrades = 1024
	DefaultBodyTimeout = time.Minute
)

// Config is what New wants to know.
type Config struct {
	Log *slog.Logger // required
	// MaxUpgrades is how many upgraded connections may be open at a time; those beyond are answered 503. Default:
	// DefaultMaxUpgrades; below 0: none.
	MaxUpgrades int
	// BodyTimeout ends a request whose body makes no progress for so long and that has no answer yet (408). Upgrades,
	// long-running requests and gRPC, whose clients may be silent for hours, have no such limit. Default:
	// DefaultBodyTimeout; below 0: no limit.
	BodyTimeout time.Duration
	// WriteStatus answers with an error, in the place of what Fail does; it has to answer HEAD without a body itself, and
	// finds Retry-After in the Status' details. Optional.
	WriteStatus func(w http.ResponseWriter, r *http.Request, s metav1.Status)
}

// Proxy passes requests on. It is safe for concurrent use.
type Proxy struct {
	log         *slog.Logger
	maxUpgrades int
	bodyTimeout time.Duration
	writeStatus func(http.ResponseWriter, *http.Request, metav1.Status)
	buffers     buffers

	mu       sync.Mutex // guards the fields below
	open     map[*exchange]struct{}
	upgrades int           // of those that are open
	draining bool          // nothing new is let in
	idle     chan struct{} // closed when nothing is open any more; made by Drain
}

// New returns a proxy without requests.
func New(c Config) *Proxy {
	if c.MaxUpgrades == 0 {
		c.MaxUpgrades = DefaultMaxUpgrades
	}
	if c.BodyTimeout == 0 {
		c.BodyTimeout = DefaultBodyTimeout
	}
	if c.WriteStatus == nil {
		c.WriteStatus = answerStatus
	}
	return &Proxy{
		log: c.Log, maxUpgrades: c.MaxUpgrades, bodyTimeout: max(c.BodyTimeout, 0), writeStatus: c.WriteStatus,
		buffers: newBuffers(), open: map[*exchange]struct{}{},
	}
}

// Target is where a request goes, and how.
type Target struct {
	// Name is what people call the target in errors: "the API server 10.0.0.1:6443". Default: Host.
	Name string
	// Scheme and Host (with its port unless it is the scheme's) are where the request goes. Required.
	Scheme, Host string
	// HostHeader is what the request says in its Host header. Default: Host.
	HostHeader string
	// RoundTripper takes requests that want no upgrade. If it follows redirects or unpacks answers, so does the proxy; an
	// *http.Transport wants ExpectContinueTimeout set, or else bodies are sent before the target has asked for them. Required.
	RoundTripper http.RoundTripper
	// Upgrade takes requests that want one. It must speak HTTP/1.1 and return a 101 answer whose Body is an
	// io.ReadWriteCloser, as *http.Transport does. nil: such requests are answered 501.
	Upgrade http.RoundTripper
	// MaxBody is how many bytes a request's body may have; more are answered 413. 0: no limit.
	MaxBody int64
	// Edit has the last word on the outgoing request. Its header map is the request's own, but the slices in it are not.
	// Optional.
	Edit func(out *http.Request)
	// EditResponse may change an answer before it is passed on, upgrades included; its error becomes the answer instead. The
	// header map is its own; what it says of Content-Length must agree with ContentLength. Optional.
	EditResponse func(*http.Response) error
	// Unanswered returns what the client is told when the target could not be reached or did not answer, in the place of the
	// words and codes that Fail has for it. It gets the RoundTripper's error. Optional.
	Unanswered func(error) error
	// Decompress asks for gzip where the client has said nothing about encodings, and unpacks the answer, as kubectl proxy
	// does: answers of the API server shrink to a tenth on the way. The RoundTripper must not do the same.
	Decompress bool
}

// Serve passes a request on to a target, and the answer back; it returns when all has been said. URL path and query go as
// they are; see WithPath for others. What fails before the answer begins becomes a Status (Fail); what fails later cuts the
// answer, with http.ErrAbortHandler as net/http wants it, so that a client never takes a part for the whole.
func (p *Proxy) Serve(w http.ResponseWriter, r *http.Request, t Target) {
	x, err := p.begin(w, r, t)
	if err != nil {
		fail(w, r, err, p.writeStatus)
		return
	}
	defer x.end()
	if x.upgrading {
		x.upgrade()
	} else {
		x.forward()
	}
}

// Open returns how many requests are being served, and how many of them are upgraded connections, or about to be.
func (p *Proxy) Open() (requests, upgrades int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.open), p.upgrades
}
