package discovery_test

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/backend/discovery"
)

// TestNameAnswersAgain gives a name one answer, then another, and looks at what counts.
func TestNameAnswersAgain(t *testing.T) {
	const four, six = "10.0.0.1:6443 dns api", "[fd00::1]:6443 dns api"
	for _, c := range []struct {
		name        string
		first, then reply
		want        []string
		warnings    int
	}{
		{"the same", reply{addrs: "10.0.0.1"}, reply{addrs: "10.0.0.1"}, []string{four}, 0},
		{"another order", reply{addrs: "10.0.0.1 10.0.0.2"}, reply{addrs: "10.0.0.2 10.0.0.1"}, []string{four, "10.0.0.2:6443 dns api"}, 0},
		{"more", reply{addrs: "10.0.0.1"}, reply{addrs: "10.0.0.2 10.0.0.1"}, []string{four, "10.0.0.2:6443 dns api"}, 0},
		{"fewer are believed", reply{addrs: "10.0.0.1 10.0.0.2"}, reply{addrs: "10.0.0.1"}, []string{four}, 0},
		{"all others", reply{addrs: "10.0.0.8 10.0.0.9"}, reply{addrs: "10.0.0.1"}, []string{four}, 0},
		{"the server fails", reply{addrs: "10.0.0.1"}, reply{err: errServer()}, []string{four}, 1},
		{"no such name", reply{addrs: "10.0.0.1 fd00::1"}, reply{err: errNoSuchName()}, []string{four, six}, 1},
		{"no addresses and no error", reply{addrs: "10.0.0.1"}, reply{addrs: ""}, []string{four}, 1},
		{"no answer", reply{addrs: "10.0.0.1"}, reply{err: errHang}, []string{four}, 1},
		{"one family is gone", reply{addrs: "10.0.0.1 fd00::1"}, reply{addrs: "10.0.0.1"}, []string{four}, 0},
		{"the file of hosts has one family", reply{addrs: "10.0.0.1 fd00::1"}, reply{addrs: "10.0.0.1", err6: errHosts()}, []string{four}, 0},
		{"one family fails", reply{addrs: "10.0.0.1 fd00::1"}, reply{addrs: "10.0.0.1", err6: errServer()}, []string{four, six}, 0},
		{"one family hangs", reply{addrs: "10.0.0.1 fd00::1"}, reply{addrs: "fd00::1", err4: errHang}, []string{four, six}, 0},
		{"one family fails, the other is gone", reply{addrs: "10.0.0.1 fd00::1"}, reply{err4: errServer()}, []string{four, six}, 1},
		{"IPv4-mapped", reply{addrs: "10.0.0.9"}, reply{addrs: "::ffff:10.0.0.1"}, []string{four}, 0},
		{"both ways to write it", reply{addrs: "10.0.0.9"}, reply{addrs: "::ffff:10.0.0.1 10.0.0.1"}, []string{four}, 0},
		{"addresses that nobody has", reply{addrs: "10.0.0.1"}, reply{addrs: "0.0.0.0 224.0.0.1 :: ff02::1"}, []string{four}, 1},
		{"one that nobody has", reply{addrs: "10.0.0.9"}, reply{addrs: "0.0.0.0 10.0.0.1"}, []string{four}, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := start(t, discovery.Config{Static: static("api:6443")}, replies("api", c.first))
				if len(s.told) != 1 {
					t.Fatalf("told %q at first", s.told)
				}
				s.resolver.set("api", c.then)
				s.period()
				time.Sleep(discovery.LookupTimeout) // the bubble's clock; one that hangs is given up
				synctest.Wait()
				s.want("then", c.want...)
				if got := s.log.count("level=WARN"); got != c.warnings {
					t.Errorf("%d warnings, want %d: %s", got, c.warnings, s.log.text.String())
				}
				s.resolver.set("api", reply{addrs: "10.0.0.77"})
				s.period()
				s.want("back", "10.0.0.77:6443 dns api")
				if got := s.log.count("names API servers again"); got != c.warnings {
					t.Errorf("said to be back %d times", got)
				}
			})
		})
	}
}

// A name that keeps failing is said to fail once, and looked up once a period.
func TestFailingNameIsSaidOnce(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, discovery.Config{Static: static("api:6443")}, replies("api", reply{addrs: "10.0.0.1"}))
		s.resolver.set("api", reply{err: errServer()})
		before := s.resolver.count("api")
		time.Sleep(100 * discovery.DefaultPeriod) // the bubble's clock
		synctest.Wait()
		if got := s.log.count("level=WARN"); got != 1 {
			t.Errorf("%d warnings: %s", got, s.log.text.String())
		}
		if asked := (s.resolver.count("api") - before) / 2; asked < 90 || asked > 112 {
			t.Errorf("looked up %d times in 100 periods", asked)
		}
		if len(s.told) != 1 {
			t.Errorf("told %q, nothing has changed", s.told)
		}
		if got := s.Sources(); len(got) != 1 || got[0].Err == nil || len(got[0].Addrs) != 1 || got[0].Answered.IsZero() {
			t.Errorf("sources %v", got)
		}
	})
}

// Before its first answer a name is looked up each second, and nothing is told.
func TestNameNotFoundYet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, discovery.Config{Static: static("api:6443")})
		time.Sleep(10 * time.Second) // the bubble's clock
		synctest.Wait()
		if asked := s.resolver.count("api") / 2; asked < 9 || asked > 12 {
			t.Errorf("looked up %d times in 10 seconds", asked)
		}
		if len(s.told) > 0 {
			t.Errorf("told %q", s.told)
		}
		s.resolver.set("api", reply{addrs: "10.0.0.1"})
		time.Sleep(time.Second + time.Millisecond) // the bubble's clock
		synctest.Wait()
		s.want("then", "10.0.0.1:6443 dns api")
	})
}

// A name that hangs holds up no other, and no longer than LookupTimeout itself; a family that hangs does not hold up the
// first answer.
func TestHangingName(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, discovery.Config{Static: static("hangs:6443", "half:6443", "slow:6443", "fast:6443")},
			replies("hangs", reply{err: errHang}), replies("half", reply{addrs: "10.0.0.2", err6: errHang}),
			replies("slow", reply{addrs: "10.0.0.3", slow: 4 * time.Second}), replies("fast", reply{addrs: "10.0.0.4"}))
		s.want("at once", "10.0.0.4:6443 dns fast")
		time.Sleep(50 * time.Millisecond) // the bubble's clock
		synctest.Wait()
		s.want("after 50 ms", "10.0.0.2:6443 dns half", "10.0.0.4:6443 dns fast")
		time.Sleep(3950 * time.Millisecond) // the bubble's clock
		synctest.Wait()
		s.want("after 4 s", "10.0.0.2:6443 dns half", "10.0.0.3:6443 dns slow", "10.0.0.4:6443 dns fast")
		s.resolver.set("hangs", reply{addrs: "10.0.0.1"})
		time.Sleep(discovery.LookupTimeout - 4*time.Second + 1100*time.Millisecond) // the bubble's clock
		synctest.Wait()
		s.want("when it does not hang any more",
			"10.0.0.1:6443 dns hangs", "10.0.0.2:6443 dns half", "10.0.0.3:6443 dns slow", "10.0.0.4:6443 dns fast")
		s.resolver.set("fast", reply{addrs: "10.0.0.5"})
		s.resolver.set("hangs", reply{err: errHang})
		s.period()
		s.want("after a period", "10.0.0.1:6443 dns hangs", "10.0.0.2:6443 dns half", "10.0.0.3:6443 dns slow", "10.0.0.5:6443 dns fast")
	})
}

// Run ends although a look-up is on its way.
func TestEndsDuringLookup(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := start(t, discovery.Config{Static: static("hangs:6443")}, replies("hangs", reply{err: errHang}))
		from := time.Now()
		s.end()
		if took := time.Since(from); took > 0 {
			t.Errorf("took %v", took)
		}
	})
}

// TestMerging looks at what many lines of a configuration come to.
func TestMerging(t *testing.T) {
	for _, c := range []struct {
		name   string
		static []string
		want   []string
	}{
		{"addresses", []string{"10.0.0.2:6443", "10.0.0.1:443@a", "[fd00::1]:6443@b"},
			[]string{"10.0.0.1:443@a static", "10.0.0.2:6443 static", "[fd00::1]:6443@b static"}},
		{"IPv4-mapped", []string{"[::ffff:10.0.0.2]:6443"}, []string{"10.0.0.2:6443 static"}},
		{"with a zone of IPv6", []string{"[fe80::1%eth0]:6443"}, []string{"[fe80::1%eth0]:6443 static"}},
		{"twice", []string{"10.0.0.2:6443@a", "10.0.0.2:6443@b"}, []string{"10.0.0.2:6443@a static"}},
		{"the one with a zone counts", []string{"10.0.0.2:6443", "10.0.0.2:6443@b"}, []string{"10.0.0.2:6443@b static"}},
		{"a name of many", []string{"three:6443@a"},
			[]string{"10.0.0.1:6443@a dns three", "10.0.0.2:6443@a dns three", "10.0.0.3:6443@a dns three"}},
		{"an address counts more than a name", []string{"three:6443@a", "10.0.0.2:6443@b"},
			[]string{"10.0.0.1:6443@a dns three", "10.0.0.2:6443@b static", "10.0.0.3:6443@a dns three"}},
		{"a name gives an address its zone", []string{"three:6443@a", "10.0.0.2:6443"},
			[]string{"10.0.0.1:6443@a dns three", "10.0.0.2:6443@a static", "10.0.0.3:6443@a dns three"}},
		{"names that overlap", []string{"two:6443", "three:6443@a"},
			[]string{"10.0.0.1:6443@a dns two", "10.0.0.2:6443@a dns two", "10.0.0.3:6443@a dns three"}},
		{"a name with two ports", []string{"two:6443", "two:443"},
			[]string{"10.0.0.1:443 dns two", "10.0.0.1:6443 dns two", "10.0.0.2:443 dns two", "10.0.0.2:6443 dns two"}},
		{"a name twice", []string{"two:6443@a", "two:6443@b"}, []string{"10.0.0.1:6443@a dns two", "10.0.0.2:6443@a dns two"}},
		{"one of two names fails", []string{"none:6443", "two:6443"}, []string{"10.0.0.1:6443 dns two", "10.0.0.2:6443 dns two"}},
		{"own listeners are left out", []string{"local:6443", "127.0.0.1:6443"}, []string{"10.0.0.4:6443 dns local"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				own := func(a netip.AddrPort) bool { return a.Addr().IsLoopback() }
				s := start(t, discovery.Config{Static: static(c.static...), Own: own}, replies("two", reply{addrs: "10.0.0.1 10.0.0.2"}),
					replies("three", reply{addrs: "10.0.0.3 10.0.0.1 10.0.0.2"}), replies("local", reply{addrs: "127.0.0.1 ::1 10.0.0.4"}))
				s.want("merged", c.want...)
			})
		})
	}
}

// The first MaxTargets count, those of the configuration first, and the log says so once.
func TestTooManyTargets(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		many := func(n int) (out []string) {
			for i := range n {
				out = append(out, fmt.Sprintf("10.0.%d.%d", i/250, 1+i%250))
			}
			return out
		}
		s := start(t, discovery.Config{Static: static("many:6443", "10.255.0.1:6443")},
			replies("many", reply{addrs: strings.Join(many(discovery.MaxTargets+50), " ")}))
		want := append(slices.Clone(many(discovery.MaxTargets-1)), "10.255.0.1")
		var got []string
		for _, f := range s.Found() {
			got = append(got, f.Addr.Addr().String())
		}
		byAddr := func(a, b string) int { return netip.MustParseAddr(a).Compare(netip.MustParseAddr(b)) }
		slices.SortFunc(want, byAddr)
		if diff := cmp.Diff(want, got); diff != "" {
			t.Errorf("(-want +got)\n%s", diff)
		}
		s.period()
		if got := s.log.count("leaves out API servers"); got != 1 || s.log.count("left_out=51") != 1 {
			t.Errorf("said %d times: %s", got, s.log.text.String())
		}
		s.resolver.set("many", reply{addrs: "10.0.0.1"})
		s.period()
		s.want("few", "10.0.0.1:6443 dns many", "10.255.0.1:6443 static")
	})
}

func TestLinesThatAreNoAddresses(t *testing.T) {
	lines := static("10.0.0.1", "api", "api:https", "api:0", "api:65536", ":6443", "fd00::1:6443", "0.0.0.0:6443", "10.0.0.1:6443")
	_, err := discovery.New(discovery.Config{Static: lines})
	if err == nil {
		t.Fatal("no error")
	}
	got := strings.Split(err.Error(), "\n")
	want := []string{
		"static[0]: address 10.0.0.1: missing port in address",
		"static[1]: address api: missing port in address",
		`static[2]: address api:https: port "https" is not between 1 and 65535`,
		`static[3]: address api:0: port "0" is not between 1 and 65535`,
		`static[4]: address api:65536: port "65536" is not between 1 and 65535`,
		"static[5]: address :6443: it has no host",
		"static[6]: address fd00::1:6443: too many colons in address",
		"static[7]: address 0.0.0.0:6443: no server can have it",
	}
	if diff := cmp.Diff(want, got); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}

// Own listeners are left out, also those that are opened after their address was found; that the configuration lists one is
// said once.
func TestOwnListeners(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var late atomic.Bool
		own := func(a netip.AddrPort) bool {
			return a.Addr().IsLoopback() || late.Load() && a == netip.MustParseAddrPort("10.0.0.1:6443")
		}
		s := start(t, discovery.Config{Static: static("127.0.0.1:6443", "10.0.0.1:6443", "api:6443"), Own: own}, replies("api", reply{addrs: "127.0.0.1 ::1"}))
		s.want("at first", "10.0.0.1:6443 static")
		if got := s.log.count("names nothing but addresses that the own listeners have"); got != 1 {
			t.Errorf("log: %s", s.log.text.String())
		}
		late.Store(true)
		s.resolver.set("api", reply{addrs: "10.0.0.2 127.0.0.1"})
		s.period()
		s.want("then", "10.0.0.2:6443 dns api")
		if got := s.log.count("an own listener has its address"); got != 1 {
			t.Errorf("log: %s", s.log.text.String())
		}
	})
}

// What need not be asked for is found before Run, and told by it.
func TestFoundBeforeRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		first := start(t, discovery.Config{Static: static("10.0.0.1:6443", "api:6443")}, replies("api", reply{addrs: "10.0.0.2"}))
		first.end()
		d, err := discovery.New(discovery.Config{Static: static("10.0.0.9:6443", "api:6443"), After: first.Discovery})
		if err != nil {
			t.Fatal(err)
		}
		if got := describe(d.Found()); got != "10.0.0.2:6443 dns api, 10.0.0.9:6443 static" {
			t.Errorf("found %s", got)
		}
		s := start(t, discovery.Config{Static: static("10.0.0.9:6443")})
		if len(s.told) != 1 {
			t.Errorf("told %q", s.told)
		}
	})
}
