package vouch

import (
	"context"
	"crypto/tls"
	"log/slog"
	"net/http"
	"strings"
	"sync"
	"time"
)

const (
	idleConnection = 90 * time.Second // upstream's
	headerTimeout  = 32 * time.Second // upstream's
	maxHeaderBytes = 1 << 20          // upstream's
	maxStreams     = 100              // upstream's: of a client's connection of HTTP/2
	streamBuffer   = 256 << 10        // upstream's: what a client may send ahead in one of them
	maxAhead       = 1 << 30          // the same in all of a connection's, however many there may be
	cutTime        = time.Second      // for telling clients that their requests were cut
	// tellTime is for telling clients to go. What they have sent before they know is answered yet: who drains lets nothing in.
	tellTime = 100 * time.Millisecond
)

// HTTPConfig is what HTTP wants to know.
type HTTPConfig struct {
	Handler  http.Handler  // required
	Streams  int           // of a client's connection of HTTP/2, at a time; default: upstream's 100
	NoHTTP2  bool          // HTTP/1.1 alone
	Header   time.Duration // how long a client may take for a handshake or a request's header; default: upstream's 32 s
	PingIdle time.Duration // a connection of HTTP/2 on which nothing comes for so long is asked whether it lives; 0: never
	Log      *slog.Logger  // required
}

// HTTP returns a server with the limits of k8s.io/apiserver's (secure_serving.go), and HTTP/2 without TLS where the listener
// has none. It remembers what certificates say.
func HTTP(c HTTPConfig) *http.Server {
	protocols := &http.Protocols{}
	protocols.SetHTTP1(true)
	protocols.SetHTTP2(!c.NoHTTP2)
	protocols.SetUnencryptedHTTP2(true) // on the loopback port; TLS settles it by ALPN
	if c.Streams <= 0 {
		c.Streams = maxStreams
	}
	if c.Header <= 0 {
		c.Header = headerTimeout
	}
	return &http.Server{
		Handler: c.Handler, Protocols: protocols, ConnContext: Remember,
		HTTP2: &http.HTTP2Config{
			MaxConcurrentStreams: c.Streams, MaxReadFrameSize: streamBuffer, SendPingTimeout: c.PingIdle, PingTimeout: pingTimeout,
			MaxReceiveBufferPerStream: streamBuffer, MaxReceiveBufferPerConnection: min(c.Streams*streamBuffer, maxAhead),
		},
		IdleTimeout: idleConnection, ReadHeaderTimeout: c.Header, MaxHeaderBytes: maxHeaderBytes,
		ErrorLog: slog.NewLogLogger(quiet{c.Log.Handler()}, slog.LevelWarn),
	}
}

// quiet writes handshakes that fail, of which port scanners cause many, at debug.
type quiet struct{ slog.Handler }

// Handle implements slog.Handler.
func (q quiet) Handle(ctx context.Context, record slog.Record) error {
	if strings.HasPrefix(record.Message, "http: TLS handshake error") {
		record.Level = slog.LevelDebug
	}
	if !q.Enabled(ctx, record.Level) {
		return nil
	}
	return q.Handler.Handle(ctx, record)
}

// TLS returns the configuration of a listener: a copy of base that shows certificates, and asks clients for theirs, which are judged
// later: a client may have another credential. It names the authorities of now, by which some clients choose.
func TLS(base *tls.Config, show *Pairs, t *Trust) *tls.Config {
	c := base.Clone()
	c.ClientAuth, c.GetCertificate = tls.RequestClientCert, show.Get
	if c.NextProtos == nil {
		c.NextProtos = []string{"h2", "http/1.1"}
	}
	c.GetConfigForClient = t.hinting(c)
	return c
}

// hinting names the authorities of now.
func (t *Trust) hinting(base *tls.Config) func(*tls.ClientHelloInfo) (*tls.Config, error) {
	var mu sync.Mutex
	var by *trusted
	current := base
	return func(*tls.ClientHelloInfo) (*tls.Config, error) {
		mu.Lock()
		defer mu.Unlock()
		if now := t.now.Load(); now != by {
			next := base.Clone()
			next.GetConfigForClient = nil
			next.ClientCAs = now.hints
			by, current = now, next
		}
		return current, nil
	}
}

// Drain ends a server: clients of HTTP/2 are told to go (GOAWAY), and requests have until the context ends. drains each end
// what one part has open; their errors are logged. What is left afterwards is cut.
func Drain(ctx context.Context, server *http.Server, log *slog.Logger, drains ...func(context.Context) error) {
	var open sync.WaitGroup
	for _, drain := range drains {
		open.Go(func() {
			select {
			case <-ctx.Done():
			case <-time.After(tellTime):
			}
			if err := drain(ctx); err != nil {
				log.Warn("streams were cut", "error", err)
			}
		})
	}
	last, cancel := longer(ctx, cutTime)
	defer cancel()
	if server.Shutdown(last) != nil {
		server.Close() // some client does not read what it is told
	}
	open.Wait()
}

// longer returns a context that ends some time after another one.
func longer(ctx context.Context, by time.Duration) (context.Context, context.CancelFunc) {
	last, cancel := context.WithCancel(context.WithoutCancel(ctx))
	stop := context.AfterFunc(ctx, func() { time.AfterFunc(by, cancel) })
	return last, func() { stop(); cancel() }
}

// Every does something once in a period until the context ends; then it returns nil.
func Every(ctx context.Context, period time.Duration, do func(context.Context)) error {
	tick := time.NewTicker(period)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			do(ctx)
		}
	}
}
