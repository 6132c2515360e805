package apiserverlb_test

import (
	"bytes"
	"context"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"varco.dev/internal/apiserverlb"
	"varco.dev/internal/apiserverlb/config"

	"net/http/httptest"
)

// TestBalances has connections open to all servers, evenly, and looks at what is told of it.
func TestBalances(t *testing.T) {
	servers := []*server{startServer(t), startServer(t), startServer(t)}
	b := start(t, settings(t, servers...), servers...)
	count := map[string]int{}
	for range 30 {
		addr, _ := b.watch()
		count[addr]++
	}
	for _, s := range servers {
		if n := count[s.addr]; n != 10 {
			t.Errorf("%d of 30 watches are at %s", n, s.addr)
		}
	}
	if err := b.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
	if err := b.Alive(); err != nil {
		t.Errorf("not alive: %v", err)
	}
	b.await("30 connections are counted", 5*time.Second, func() bool { return b.state(servers[0]).Connections == 10 && b.Status().Connections == 30 })
	var table bytes.Buffer
	if err := apiserverlb.WriteTable(&table, b.Status(), time.Now()); err != nil || strings.Count(table.String(), "static  Up") != 3 {
		t.Errorf("%v, table:\n%s", err, table.String())
	}
	registry := prometheus.NewPedanticRegistry()
	registry.MustRegister(b.Collector())
	w := httptest.NewRecorder()
	promhttp.HandlerFor(registry, promhttp.HandlerOpts{}).ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/metrics", nil))
	for _, want := range []string{
		"varco_apiserver_lb_connections 30", `varco_apiserver_lb_backend_connections{backend="` + servers[0].addr + `"} 10`,
		`varco_apiserver_lb_backend_state{backend="` + servers[1].addr + `",state="Up"} 1`, `varco_apiserver_lb_moved_total{reason="down"} 0`,
	} {
		if !strings.Contains(w.Body.String(), want+"\n") {
			t.Errorf("metrics lack %s:\n%s", want, w.Body.String())
		}
	}
}

// TestHungServer has a server stop as SIGSTOP does it. Its watches end within six seconds, those of others do not, and no new
// connection fails.
func TestHungServer(t *testing.T) {
	t.Parallel() // it waits more than it works
	servers := []*server{startServer(t), startServer(t)}
	b := start(t, settings(t, servers...), servers...)
	b.proven(servers...)
	stuck, fine := []<-chan struct{}{}, []<-chan struct{}{}
	for range 10 {
		if addr, done := b.watch(); addr == servers[0].addr {
			stuck = append(stuck, done)
		} else {
			fine = append(fine, done)
		}
	}
	goOn := servers[0].hang()
	defer goOn()
	began := time.Now()
	for time.Since(began) < 3*time.Second {
		if addr, err := b.once(); err != nil || addr != servers[1].addr {
			t.Errorf("a new connection after %s: %q, %v", time.Since(began), addr, err)
		}
	}
	for _, done := range stuck {
		select {
		case <-done:
		case <-time.After(6*time.Second - time.Since(began)):
			t.Fatal("a watch of the server that hangs is still open")
		}
	}
	for _, done := range fine {
		select {
		case <-done:
			t.Error("a watch of the other server was ended")
		default:
		}
	}
	if s := b.state(servers[0]); s.State != "Down" || len(stuck) == 0 {
		t.Errorf("%d watches; %+v", len(stuck), s)
	}
	b.await("their ends are counted", time.Second, func() bool { return b.Status().Moved["down"] >= len(stuck) })
}

// TestRedServer has /readyz of one turn red: no new connection goes there, a client that asks all the time keeps its
// connection, and idle ones are moved.
func TestRedServer(t *testing.T) {
	t.Parallel() // it waits more than it works
	servers := []*server{startServer(t), startServer(t), startServer(t)}
	b := start(t, settings(t, servers...), servers...)
	b.proven(servers...)
	var busy *kept
	for busy == nil {
		if k := b.kept(); first(k.get("/")) == servers[0].addr {
			busy = k
		}
	}
	idle := 0
	for range 12 {
		if addr, _ := b.watch(); addr == servers[0].addr {
			idle++
		}
	}
	servers[0].ready.Store(http.StatusInternalServerError)
	b.awaitState(servers[0], "Draining")
	before := servers[0].requests.Load()
	for deadline := time.Now().Add(25 * time.Second); servers[0].watches.Load() > 0; {
		if addr, err := b.once(); err != nil || addr == servers[0].addr {
			t.Fatalf("a new connection went to %q, %v", addr, err)
		}
		if addr, err := busy.get("/"); err != nil || addr != servers[0].addr {
			t.Fatalf("the busy connection: %q, %v", addr, err)
		}
		if before++; time.Now().After(deadline) {
			t.Fatalf("%d of %d idle connections are still there", servers[0].watches.Load(), idle)
		}
	}
	if idle == 0 || servers[0].requests.Load() != before {
		t.Errorf("%d idle connections; %d requests, want %d", idle, servers[0].requests.Load(), before)
	}
	servers[0].ready.Store(http.StatusOK)
	b.awaitState(servers[0], "Up")
}

func first(s string, _ error) string { return s }

// TestAllRed has all /readyz turn red at once, as a stalled etcd has them do: clients are served, and connections stay.
func TestAllRed(t *testing.T) {
	t.Parallel() // it waits more than it works
	servers := []*server{startServer(t), startServer(t)}
	b := start(t, settings(t, servers...), servers...)
	b.proven(servers...)
	_, done := b.watch()
	for _, s := range servers {
		s.ready.Store(http.StatusInternalServerError)
	}
	for _, s := range servers {
		b.awaitState(s, "Draining")
	}
	b.await("both are used nevertheless", 5*time.Second, func() bool { return b.state(servers[0]).FailOpen && b.state(servers[1]).FailOpen })
	for range 10 {
		if _, err := b.once(); err != nil {
			t.Error(err)
		}
	}
	if err := b.Ready(t.Context()); err != nil {
		t.Errorf("not ready: %v", err)
	}
	select {
	case <-done:
		t.Error("a watch was ended")
	default:
	}
}

// TestServerComesBack has a server start after the others have all connections: idle ones are moved there, at the rate allowed.
func TestServerComesBack(t *testing.T) {
	t.Parallel() // it waits more than it works
	servers := []*server{startServer(t), startServer(t)}
	c := settings(t, servers...)
	c.Rebalance.PercentPerSecond = 20
	goOn := servers[1].hang()
	b := start(t, c, servers...)
	b.awaitState(servers[1], "Down")
	watches := make(chan struct{}, 1000)
	for range 20 {
		watchOn(b, watches)
	}
	if n := servers[0].watches.Load(); n != 20 {
		t.Fatalf("%d watches are at the only server", n)
	}
	goOn()
	began := time.Now()
	b.await("watches are spread", 30*time.Second, func() bool { return servers[1].watches.Load() >= 9 })
	took := time.Since(began)
	if moved := b.Status().Moved["rebalancing"]; moved < 9 || moved > 12 || float64(moved) > 4*took.Seconds() {
		t.Errorf("%d were moved in %s, of 20 at most a fifth in a second", moved, took)
	}
}

// watchOn watches, and again whenever that ends, as client-go does.
func watchOn(b *balancer, events chan struct{}) {
	_, done := b.watch()
	go func() {
		for {
			<-done
			select {
			case events <- struct{}{}:
			default:
			}
			if b.t.Context().Err() != nil {
				return
			}
			k, err := b.dial()
			if err != nil {
				return
			}
			over := make(chan struct{})
			go func() {
				defer close(over)
				defer k.Close()
				stop := context.AfterFunc(b.t.Context(), func() { k.Close() })
				defer stop()
				if _, err := k.Write([]byte("GET /watch HTTP/1.1\r\nHost: x\r\n\r\n")); err == nil {
					_, _ = k.Read(make([]byte, 1))
					_, _ = new(bytes.Buffer).ReadFrom(k)
				}
			}()
			done = over
		}
	}()
}

// TestApply takes over other settings while a connection is open: other backends, another listener, and some that cannot be
// had.
func TestApply(t *testing.T) {
	t.Parallel() // it waits more than it works
	servers := []*server{startServer(t), startServer(t)}
	c := settings(t, servers[0])
	b := start(t, c, servers...)
	k := b.kept()
	if addr, err := k.get("/"); addr != servers[0].addr || err != nil {
		t.Fatal(addr, err)
	}
	old := b.addr
	next := settings(t, servers[1])
	next.Health.CAFile = c.Health.CAFile
	if err := b.Apply(t.Context(), next); err != nil {
		t.Fatal(err)
	}
	b.addr = next.Listeners[0].Address
	b.await("the other backend is used", 5*time.Second, func() bool { return first(b.once()) == servers[1].addr })
	if addr, err := k.get("/"); addr != servers[0].addr || err != nil {
		t.Errorf("the connection from before: %q, %v", addr, err)
	}
	at := b.addr
	if b.addr = old; first(b.once()) != "" {
		t.Error("the listener that is gone still answers")
	}
	b.addr = at

	taken := next
	taken.Listeners = append([]config.Listener{}, next.Listeners...)
	taken.Listeners = append(taken.Listeners, config.Listener{Address: servers[0].addr, Name: "taken", Mode: config.ModeTCP})
	if err := b.Apply(t.Context(), taken); err == nil || !strings.Contains(err.Error(), "taken") {
		t.Errorf("a listener whose address is taken: %v", err)
	}
	if addr, err := b.once(); addr != servers[1].addr || err != nil {
		t.Errorf("after settings that could not be had: %q, %v", addr, err)
	}
	if n := len(b.Status().Listeners); n != 1 {
		t.Errorf("%d listeners", n)
	}
}

// TestEnds ends a balancer: for the shutdown delay it takes new connections and says that it is not ready; then one that
// answers to the end, and one that is idle is closed in order.
func TestEnds(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := startServer(t)
	c := settings(t, s)
	c.Drain.ShutdownDelay.Duration = 500 * time.Millisecond
	c.Drain.Timeout.Duration = 20 * time.Second
	b := start(t, c, s)
	b.proven(s)
	if err := b.Ready(t.Context()); err != nil {
		t.Fatal(err)
	}
	k := b.kept()
	if _, err := k.get("/"); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	go b.end()
	b.await("it is not ready", 5*time.Second, func() bool { return b.Ready(t.Context()) != nil })
	if addr, err := b.once(); addr != s.addr || err != nil {
		t.Errorf("a new connection in the delay: %q, %v", addr, err)
	}
	b.await("no new connections are taken", 5*time.Second, func() bool { _, err := b.dial(); return err != nil })
	b.end()
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("took %s with one connection, which was idle", took)
	}
	if _, err := k.Read(make([]byte, 1)); err == nil || !strings.Contains(err.Error(), "EOF") {
		t.Errorf("the idle connection has met %v, want an orderly end", err)
	}
}

// TestNoServer has no server answer: it is not ready, and says why.
func TestNoServer(t *testing.T) {
	t.Parallel() // it waits more than it works
	s := startServer(t)
	c := settings(t, s)
	s.CloseClientConnections()
	s.Close()
	b := start(t, c, s)
	b.awaitState(s, "Down")
	if err := b.Ready(t.Context()); err == nil || !strings.Contains(err.Error(), "no API server answers through the own data path") {
		t.Errorf("ready: %v", err)
	}
	if b.Alive() != nil {
		t.Error("not alive, for a fault elsewhere")
	}
	_ = addrPort(t, s.addr)
}
