package apiservers_test

import (
	"context"
	"fmt"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/apiwatch/apiservers"
	"varco.dev/internal/apiwatch/apitest"
	"varco.dev/internal/backend/discovery"
)

// found runs a discovery that has one seed, a file, and the slices of a server, until the test ends.
func found(t *testing.T, server *apitest.Server, file string) (told chan string, end func()) {
	client, log := server.Client(t), slog.New(slog.DiscardHandler)
	told = make(chan string, 100)
	d, err := discovery.New(discovery.Config{
		Static:    []discovery.Static{{Address: "10.0.0.1:6443", Zone: "a"}},
		CacheFile: file,
		Slices: func(ctx context.Context, changed func([]netip.AddrPort)) error {
			return apiservers.Watch(ctx, apiservers.Config{Client: client, Log: log}, changed)
		},
		Changed: func(all []discovery.Found) {
			var out []string
			for _, f := range all {
				out = append(out, strings.TrimSpace(fmt.Sprint(f.Addr, " ", f.Source, " ", f.Zone)))
			}
			told <- strings.Join(out, ", ")
		},
		Log: log,
	})
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	ended := make(chan error, 1)
	go func() { ended <- d.Run(ctx) }()
	return told, func() {
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("Run returned %v", err)
		}
	}
}

func next(t *testing.T, told chan string, want string) {
	t.Helper()
	select {
	case got := <-told:
		if got != want {
			t.Fatalf("told %q, want %q", got, want)
		}
	case <-time.After(30 * time.Second):
		t.Fatalf("not told %q", want)
	}
}

// TestDiscoveryByWatch goes through the life of a cluster as a balancer sees it, with a real watch: the API server is away
// at the start, answers, goes empty, is lost, and comes back with other addresses; at the next start it is away again.
func TestDiscoveryByWatch(t *testing.T) {
	file := filepath.Join(t.TempDir(), "varco", "apiserver-lb.json")
	server := apitest.New(t)
	server.Set("endpointslices", servers("kubernetes", "10.0.0.1", "10.0.0.2"), true)
	server.Stop()
	told, end := found(t, server, file)
	next(t, told, "10.0.0.1:6443 static a")
	server.Restart(t)
	next(t, told, "10.0.0.1:6443 kubernetes a, 10.0.0.2:6443 kubernetes")

	set := func(addrs ...string) { server.Set("endpointslices", servers("kubernetes", addrs...), false) }
	set() // all leases have run out while etcd was away
	set("10.0.0.3")
	next(t, told, "10.0.0.3:6443 kubernetes") // and not the seed in between
	server.Delete("endpointslices", "kubernetes", false)
	server.Stop()
	server.Set("endpointslices", servers("kubernetes", "10.0.0.7", "10.0.0.8"), true)
	server.Restart(t)
	next(t, told, "10.0.0.7:6443 kubernetes, 10.0.0.8:6443 kubernetes")
	end()

	server.Stop()
	told, end = found(t, server, file)
	next(t, told, "10.0.0.1:6443 static a, 10.0.0.7:6443 cache, 10.0.0.8:6443 cache")
	server.Restart(t)
	next(t, told, "10.0.0.7:6443 kubernetes, 10.0.0.8:6443 kubernetes")
	end()
	if text, err := os.ReadFile(file); err != nil || !strings.Contains(string(text), `"10.0.0.8:6443"`) {
		t.Errorf("the file has %s, %v", text, err)
	}
}
