package load

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// DialFunc connects to a numeric address. nettest.Namespace.DialContext is one.
type DialFunc func(ctx context.Context, network, address string) (net.Conn, error)

// Config says what to send, whence, and how much of it.
type Config struct {
	// URL is where to; its host must be an address. The scheme is the protocol: http, https (any certificate will do),
	// h2c (HTTP/2 without TLS), tcp, udp or sctp. Required.
	URL string
	// Dial connects. Optional: default from the network namespace of the process.
	Dial DialFunc
	// Requests is how many. Required.
	Requests int
	// Hold keeps requests coming when there have been enough of them, until it is closed. Optional.
	Hold <-chan struct{}
	// Concurrency is how many requests are under way at a time. Optional: default 1.
	Concurrency int
	// Rate is how many requests begin in a second, 0 for as many as there can be.
	Rate float64
	// Timeout bounds each request. Optional: default 5 s.
	Timeout time.Duration
	// KeepAlive makes each of the concurrent senders use one connection for all its requests. Without it each request
	// has a new connection, from another port.
	KeepAlive bool
	// Done is called after each request, by several goroutines at a time, with nil or the reason of its failure. Optional.
	Done func(error)
}

// Run sends the requests and returns when all are answered or failed, or early when ctx ends; requests that this
// breaks off are not counted. The error is about the Config alone.
func Run(ctx context.Context, cfg Config) (*Report, error) {
	cfg = cfg.withDefaults()
	open, err := opener(cfg)
	if err != nil {
		return nil, err
	}
	tokens := make(chan struct{})
	go issue(ctx, cfg, tokens)

	report := NewReport()
	var wg sync.WaitGroup
	for range max(cfg.Concurrency, 1) {
		w := worker{cfg: cfg, open: open, report: report}
		wg.Go(func() { w.work(ctx, tokens) })
	}
	wg.Wait()
	return report, nil
}

func (cfg Config) withDefaults() Config {
	if cfg.Dial == nil {
		cfg.Dial = new(net.Dialer).DialContext
	}
	if cfg.Timeout <= 0 {
		cfg.Timeout = 5 * time.Second
	}
	return cfg
}

// issue sends one token for each request, at the rate asked for.
func issue(ctx context.Context, cfg Config, tokens chan<- struct{}) {
	defer close(tokens)
	limit := rate.Inf
	if cfg.Rate > 0 {
		limit = rate.Limit(cfg.Rate)
	}
	limiter := rate.NewLimiter(limit, 1)
	for n := 0; n < cfg.Requests || held(cfg.Hold); n++ {
		if limiter.Wait(ctx) != nil {
			return
		}
		select {
		case tokens <- struct{}{}:
		case <-ctx.Done():
			return
		}
	}
}

func held(hold <-chan struct{}) bool {
	if hold == nil {
		return false
	}
	select {
	case <-hold:
		return false
	default:
		return true
	}
}

// answer is what the test server says of a request.
type answer struct {
	pod    string
	client string // address and port that the request came from, as the pod saw it
}

// session is what a sender has open. Only one goroutine uses it.
type session interface {
	// ask sends one request and returns who answered.
	ask(ctx context.Context) (answer, error)
	close()
}

// opener returns the function that makes the sessions for the URL's protocol.
func opener(cfg Config) (func() session, error) {
	u, err := url.Parse(cfg.URL)
	if err != nil {
		return nil, fmt.Errorf("read the address to send requests to: %w", err)
	}
	switch u.Scheme {
	case "http", "https", "h2c":
		if _, err := netip.ParseAddr(u.Hostname()); err != nil {
			return nil, fmt.Errorf("send requests to %s: the host must be an IP address (in a lab there is no DNS): %w", cfg.URL, err)
		}
		return func() session { return newHTTP(cfg, u) }, nil
	case "tcp", "udp", "sctp":
		to, err := netip.ParseAddrPort(u.Host)
		if err != nil {
			return nil, fmt.Errorf("send requests to %s: want %s://ADDRESS:PORT: %w", cfg.URL, u.Scheme, err)
		}
		return socketOpener(cfg, u.Scheme, to), nil
	}
	return nil, fmt.Errorf("send requests to %s: the scheme must be http, https, h2c, tcp, udp or sctp", cfg.URL)
}

// worker is one sender.
type worker struct {
	cfg     Config
	open    func() session
	report  *Report
	session session
}

func (w *worker) work(ctx context.Context, tokens <-chan struct{}) {
	defer w.hangUp()
	for range tokens {
		begin := time.Now()
		got, err := w.ask(ctx)
		took := time.Since(begin)
		if err != nil && ctx.Err() != nil {
			return
		}
		if err != nil {
			err = w.describe(err)
		}
		w.report.add(got, took, err)
		if w.cfg.Done != nil {
			w.cfg.Done(err)
		}
		if err != nil || !w.cfg.KeepAlive {
			w.hangUp()
		}
	}
}

func (w *worker) ask(ctx context.Context) (answer, error) {
	ctx, cancel := context.WithTimeout(ctx, w.cfg.Timeout)
	defer cancel()
	if w.session == nil {
		w.session = w.open()
	}
	return w.session.ask(ctx)
}

func (w *worker) hangUp() {
	if w.session != nil {
		w.session.close()
		w.session = nil
	}
}

// describe takes out of an error what differs from request to request, such as ports, so that equal failures count
// as equal.
func (w *worker) describe(err error) error {
	var timeout interface{ Timeout() bool }
	cause, during := err, ""
	var u *url.Error
	if errors.As(err, &u) {
		cause = u.Err
	}
	var op *net.OpError
	if errors.As(err, &op) {
		cause, during = op.Err, op.Op+" "+op.Net+": "
	}
	if errors.As(err, &timeout) && timeout.Timeout() {
		cause = fmt.Errorf("no answer within %s", w.cfg.Timeout)
	}
	return fmt.Errorf("%s%w", during, cause)
}
