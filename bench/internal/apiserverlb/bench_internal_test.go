package apiserverlb

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/report"
)

// TestMain makes this program what the bench starts: the backends, and all balancers.
func TestMain(m *testing.M) {
	args := os.Args[1:]
	if len(args) == 0 || strings.HasPrefix(args[0], "-test.") {
		os.Exit(m.Run())
	}
	if err := child(args); err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func child(args []string) error {
	if args[0] == "stand-in" {
		return standIn(args[1:])
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	defer stop()
	cmd := Command()
	cmd.SetArgs(args[1:])
	return cmd.ExecuteContext(ctx)
}

// standIn is the least that can be measured: it leads to one backend after the other.
func standIn(args []string) error {
	f := flag.NewFlagSet("stand-in", flag.ContinueOnError)
	at, to := f.String("at", "", ""), f.String("to", "", "")
	if err := f.Parse(args); err != nil {
		return err
	}
	l, err := net.Listen("tcp", *at)
	if err != nil {
		return err
	}
	backends := strings.Split(*to, ",")
	for n := 0; ; n++ {
		client, err := l.Accept()
		if err != nil {
			return err
		}
		go relay(client, backends[n%len(backends)])
	}
}

// relay carries bytes both ways until one side ends.
func relay(client net.Conn, to string) {
	defer client.Close()
	server, err := net.Dial("tcp", to)
	if err != nil {
		return
	}
	defer server.Close()
	go func() {
		defer server.Close()
		_, _ = io.Copy(server, client)
	}()
	_, _ = io.Copy(client, server)
}

func freePort(t *testing.T) uint16 {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return netip.MustParseAddrPort(l.Addr().String()).Port()
}

// newBench measures stand-ins, without a namespace.
func newBench(t *testing.T, plan Plan) *Bench {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	return &Bench{plan: plan, names: contenders, dir: t.TempDir(), log: slog.New(slog.DiscardHandler),
		program: func(name string, j job) (contender.Contender, error) {
			var to []string
			for _, b := range j.Backends {
				to = append(to, b.String())
			}
			return contender.Contender{Name: name, Path: self, Args: []string{"stand-in", "-at", j.At.String(), "-to", strings.Join(to, ",")}}, nil
		},
		open: func(ctx context.Context, dir string) (*place, error) {
			p := &place{dir: dir, balancer: netip.AddrPortFrom(numbered(backendNet, 100), freePort(t))}
			return p, p.serve(ctx, freePort(t))
		}}
}

func smallPlan() Plan {
	p := quickPlan()
	p.Rounds, p.Passes, p.Time, p.Warm, p.Settle, p.Idle = 2, 2, leastTime, 10*time.Millisecond, 0, 50
	p.Bulks, p.BulkMiB = []int{1, 2}, 16
	return p
}

// All figures of speed come of all contenders that have them, once in each pass.
func TestSpeed(t *testing.T) {
	p := smallPlan()
	p.Groups = slices.Concat(visits...)
	s, err := newBench(t, p).run(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		measure     string
		size, count int
		direct      bool // it is measured of no balancer too
	}{
		{bareMiB, one, 2, false}, {idleKiB, 50, 2, false}, {idleFDs, 50, 2, false},
		{getRate, fewConnections, 4, true}, {getCPU, manyConnections, 4, false}, {getP50, fewConnections, 4, true}, {getP99, fewConnections, 4, true},
		{connectRate, lanes, 4, true}, {connectCPU, lanes, 4, false}, {connectP99, lanes, 4, true},
		{bulkCPU, 1, 4, false}, {bulkRate, 2, 4, true},
	} {
		for _, name := range []string{varco, haproxy, nginx, direct, cutting} {
			want := c.count
			if name == cutting || name == direct && !c.direct {
				want = 0
			}
			if got := s.Of(name, c.measure, c.size); len(got) != want || want > 0 && slices.Min(got) <= 0 && c.measure != idleKiB {
				t.Errorf("%s of %s at %d: got %v, want %d", c.measure, name, c.size, got, want)
			}
		}
	}
	// Goroutines and a pair of sockets; splice takes two pipes more.
	if got := report.Median(s.Of(varco, idleFDs, 50)); got < 2 || got > 6.5 {
		t.Errorf("an idle connection has %v descriptors", got)
	}
}

// A contender that ends, or that is not there, is told of.
func TestContenderFails(t *testing.T) {
	p := smallPlan()
	p.Groups = []string{groupGet}
	b := newBench(t, p)
	b.program = func(string, job) (contender.Contender, error) {
		return contender.Contender{Name: varco, Path: "sh", Args: []string{"-c", "echo bad configuration; exit 1"}}, nil
	}
	if _, err := b.run(t.Context()); err == nil || !strings.Contains(err.Error(), "bad configuration") {
		t.Errorf("got %v, want what it wrote", err)
	}
	b.program = func(string, job) (contender.Contender, error) {
		return contender.Contender{}, errors.New("nothing here")
	}
	if _, err := b.run(t.Context()); err == nil || !strings.Contains(err.Error(), "nothing here") {
		t.Errorf("got %v, want why", err)
	}
}

// A report can be written anew from its samples.
func TestAgain(t *testing.T) {
	dir := t.TempDir()
	s := report.Samples{{Contender: varco, Size: fewConnections, Round: 1, Measure: getRate, Value: 1000},
		{Contender: haproxy, Size: fewConnections, Round: 1, Measure: getRate, Value: 900}}
	if err := theReport().Write(io.Discard, dir, nil, s); err != nil {
		t.Fatal(err)
	}
	before, err := os.ReadFile(filepath.Join(dir, "apiserver-lb.md"))
	if err != nil {
		t.Fatal(err)
	}
	cmd, again := Command(), t.TempDir()
	cmd.SetOut(io.Discard)
	cmd.SetArgs([]string{"--from", filepath.Join(dir, "apiserver-lb.csv"), "--out", again})
	if err := cmd.ExecuteContext(t.Context()); err != nil {
		t.Fatal(err)
	}
	after, err := os.ReadFile(filepath.Join(again, "apiserver-lb.md"))
	if err != nil || string(after) != string(before) || len(before) == 0 {
		t.Errorf("got\n%s\nwant\n%s\n%v", after, before, err)
	}
}
