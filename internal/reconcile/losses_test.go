package reconcile_test

import (
	"bytes"
	"context"
	"log/slog"
	"net/netip"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/reconcile"
	"varco.dev/internal/service"
)

// TestManyLosses has a Service ask for what another one has: the log names some addresses, and each once.
func TestManyLosses(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var log bytes.Buffer
		start := make(chan struct{})
		l := reconcile.New(reconcile.Config{
			Table: service.NewTable("node-1"), Plane: &plane{}, Start: start, Log: slog.New(slog.NewTextHandler(&log, nil)),
		})
		ask := func(name string, created int64, addresses int) {
			s := &service.Service{
				Name: service.Name{Namespace: "x", Name: name}, Created: time.Unix(created, 0),
				ClusterIPs: []netip.Addr{netip.AddrFrom4([4]byte{10, 96, 0, byte(created)})},
				Ports:      []service.ServicePort{{Protocol: service.TCP, Port: 80}},
			}
			for i := range addresses {
				s.ExternalIPs = append(s.ExternalIPs, netip.AddrFrom4([4]byte{198, 18, byte(i >> 8), byte(i)}))
			}
			l.Update(func(table *service.Table) { table.SetService(s) })
			pass(time.Second)
			synctest.Wait()
		}
		close(start)
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		go l.Run(ctx)
		ask("older", 1, 2000)
		for _, c := range []struct{ addresses, named, more int }{{1000, 10, 1}, {1001, 1, 0}, {1001, 0, 0}} {
			log.Reset()
			ask("newer", 2, c.addresses)
			named, more := strings.Count(log.String(), "is claimed by two"), strings.Count(log.String(), "addresses=990")
			if named != c.named || more != c.more {
				t.Errorf("of %d addresses %d are named and %d lines tell of more, want %d and %d", c.addresses, named, more, c.named, c.more)
			}
		}
	})
}
