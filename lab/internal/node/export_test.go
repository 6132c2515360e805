package node

import (
	"context"
	"net/http"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apiserver/pkg/authentication/authenticator"
	"k8s.io/apiserver/pkg/authorization/authorizer"
)

// The pure parts, for their tests.
var (
	Expand       = expand
	CommandOf    = commandOf
	ImageOf      = imageOf
	ParseImages  = parseImages
	NewAddresses = newAddresses
	NewThreshold = newThreshold
	StatusOf     = statusOf
	StatusPatch  = statusPatch
	FirstRecord  = firstRecord
	Restarts     = restarts
	RoutesOf     = routesOf
)

// Names for the tests of what the package keeps to itself.
type (
	Record  = record
	Backoff = backoff
	Payload = payload
	File    = file
)

// After is backoff.after.
var After = (*backoff).after

// Take and Release are those of addresses.
var (
	Take    = (*addresses).take
	Release = (*addresses).release
)

// Add is threshold.add.
var Add = (*threshold).add

// ErrNoAddress is errNoAddress.
var ErrNoAddress = errNoAddress

// Write is payload.write.
var Write = payload.write

// NewFile returns a file with the usual mode.
func NewFile(data string) File { return file{[]byte(data), 0o644} }

// Set changes a record as the agent would.
func (r *record) Set(sandbox, initialized, ended bool) {
	r.sandbox, r.initialized, r.ended = sandbox, initialized, ended
}

// Containers returns the record's container statuses, to be changed.
func (r *record) Containers() map[string]v1.ContainerStatus { return r.containers }

// NewLog and ParseLogOptions are of the logs.
var (
	NewLog          = newLog
	ParseLogOptions = parseLogOptions
)

// MaxLogSize is maxLogSize.
const MaxLogSize = maxLogSize

// CopyLog writes what is in a log.
func CopyLog(w http.ResponseWriter, o logOptions, path string) {
	_ = (&logReader{out: w, o: o}).copyOld(path)
}

// FollowLog writes what is in a log and what is added.
func FollowLog(ctx context.Context, w http.ResponseWriter, path string, runs func() bool) {
	l := &logReader{out: w, o: logOptions{follow: true, tail: -1, limit: -1}}
	_ = l.copyOld(path)
	l.follow(ctx, path, runs)
}

// NewGate returns a gate with an authenticator and an authorizer of a test.
func NewGate(node string, who authenticator.Request, may authorizer.Authorizer) *gate {
	return &gate{node: node, who: who, may: may}
}

// Routes is the handler of port 10250.
func Routes(a *Agent, g *gate) http.Handler { return a.routes(g) }

// Avoid is addresses.avoid.
var Avoid = (*addresses).avoid

// SecurityOf and PruneLogs are of their files.
var (
	SecurityOf = securityOf
	PruneLogs  = pruneLogs
)

// Protect is gate.protect.
func (g *gate) Protect(next http.Handler) http.Handler { return g.protect(next) }

// EnvOf is envOf.
func EnvOf(c *v1.Container, pod *v1.Pod, from objects) (map[string]string, error) {
	return envOf(c, environment{pod, from, map[string]string{"BASE": "b"}})
}

// Outputs are of the streams: NewOutput makes one, Follow adds a client, CopyTo reads what is for it.
var (
	NewOutput = newOutput
	Follow    = (*output).follow
	CopyTo    = (*follower).copyTo
	EndOutput = (*output).end
	ErrSlow   = errSlow
)

// Backlog is backlog.
const Backlog = backlog
