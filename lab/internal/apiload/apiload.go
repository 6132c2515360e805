// Package apiload is the clients of a Kubernetes API that a fault between them and its servers hurts: informers, requests
// over connections that are kept, and new connections. It counts what they notice.
package apiload

import (
	"context"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	corev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/rest"
)

// Config says what load to make. Fields without a default must be set.
type Config struct {
	// Way is how clients reach the API, as administrator. Servers are the API servers themselves, by way of none but their
	// own network: the writer uses the first that answers, so that it goes on while the way is cut.
	Way     *rest.Config
	Servers []*rest.Config
	// Dial connects clients from where they are; addresses are numeric.
	Dial func(ctx context.Context, network, address string) (net.Conn, error)
	// Namespace is where the objects are; it is made if it does not exist.
	Namespace string
	// Watches is how many informers there are, each with a connection of its own.
	Watches int
	// Kept is how many connections are kept for requests; Requests are how many are sent a second, over all of them.
	Kept, Requests int
	// Fresh is how many new connections are made a second, each for one request.
	Fresh int
	// Writes is how many objects are changed a second.
	Writes int
}

// Bounds.
const (
	objects      = 10               // that are written, by turns
	outstanding  = 4096             // requests of each kind at a time
	keptTimeout  = 15 * time.Second // of a request over a kept connection
	freshTimeout = 3 * time.Second  // of a new connection and its request
	writeTimeout = 500 * time.Millisecond
	syncTimeout  = 60 * time.Second // of all informers at the start
)

// Load is running clients.
type Load struct {
	cfg       Config
	cancel    context.CancelFunc
	running   sync.WaitGroup
	writer    *writer
	informers []*informer
	kept      *tally
	fresh     *tally
}

// Start makes the objects and all clients, and returns when every informer has seen the objects. Stop ends the clients.
func Start(ctx context.Context, cfg Config) (*Load, error) {
	l := &Load{cfg: cfg, kept: &tally{}, fresh: &tally{}}
	var err error
	if l.writer, err = newWriter(cfg); err != nil {
		return nil, err
	}
	if err := l.writer.prepare(ctx); err != nil {
		return nil, err
	}
	run, cancel := context.WithCancel(context.WithoutCancel(ctx))
	l.cancel = cancel
	if err := l.run(run); err != nil {
		l.Stop()
		return nil, err
	}
	if err := l.awaitSync(ctx); err != nil {
		l.Stop()
		return nil, err
	}
	return l, nil
}

func (l *Load) run(ctx context.Context) error {
	for i := range l.cfg.Watches {
		client, err := corev1.NewForConfig(l.clientConfig(fmt.Sprintf("informer-%d", i)))
		if err != nil {
			return err
		}
		in := newInformer(client, l.cfg.Namespace)
		l.informers = append(l.informers, in)
		l.running.Go(func() { in.run(ctx) })
	}
	l.running.Go(func() { l.writer.run(ctx, l.cfg.Writes) })
	if err := l.runKept(ctx); err != nil {
		return err
	}
	return l.runFresh(ctx)
}

// clientConfig is the configuration of one client. One with a dialler never shares a connection with another: see
// transport.tlsConfigKey of client-go.
func (l *Load) clientConfig(agent string) *rest.Config {
	conf := rest.CopyConfig(l.cfg.Way)
	conf.Dial, conf.QPS, conf.UserAgent = l.cfg.Dial, -1, agent
	return conf
}

func (l *Load) awaitSync(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, syncTimeout, errors.New("informers have not seen all objects in time"))
	defer cancel()
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for _, in := range l.informers {
		for !in.synced() {
			select {
			case <-ctx.Done():
				return context.Cause(ctx)
			case <-tick.C:
			}
		}
	}
	return nil
}

// Settle holds the writer up and returns when every informer holds what the API has; then the writer goes on. The error
// tells how many do not, after the limit.
func (l *Load) Settle(ctx context.Context, limit time.Duration) error {
	l.writer.turn.Lock()
	defer l.writer.turn.Unlock()
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	tick := time.NewTicker(50 * time.Millisecond)
	defer tick.Stop()
	for {
		behind, err := l.behind(ctx)
		if err == nil && behind == 0 {
			return nil
		}
		select {
		case <-ctx.Done():
			return fmt.Errorf("%d of %d informers do not hold what the API has: %w", behind, len(l.informers), errors.Join(ctx.Err(), err))
		case <-tick.C:
		}
	}
}

// behind counts informers that hold another version of an object than the API does.
func (l *Load) behind(ctx context.Context) (n int, err error) {
	versions, err := l.writer.versions(ctx)
	if err != nil {
		return 0, err
	}
	for _, in := range l.informers {
		if !in.holds(versions) {
			n++
		}
	}
	return n, nil
}

// Stop ends all clients and waits for them.
func (l *Load) Stop() {
	l.cancel()
	l.running.Wait()
}

// Since reports what clients noticed from the time on.
func (l *Load) Since(begin time.Time) Report {
	return Report{Took: time.Since(begin), Kept: l.kept.since(begin), Fresh: l.fresh.since(begin), Watches: watchesSince(l.informers, begin)}
}
