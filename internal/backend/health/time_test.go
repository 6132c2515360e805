//go:build !race

package health_test

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/backend/health"
)

// bound is within which time a backend that hangs or vanishes is Down, and its sessions are cut.
const bound = 4500 * time.Millisecond

// jitters are the shortest, the usual and the longest interval.
var jitters = []float64{0, 0.5, 0.999999}

// TestHangIsFoundInTime stops a backend, or cuts its cable, at any moment between two probes.
func TestHangIsFoundInTime(t *testing.T) {
	faults := map[string]func(*peer){
		"stopped":  func(p *peer) { p.running = make(chan struct{}) },
		"vanished": func(p *peer) { p.running, p.way = make(chan struct{}), blackhole },
	}
	for name, fault := range faults {
		worst := time.Duration(0)
		for _, jitter := range jitters {
			for off := time.Duration(0); off < 1300*time.Millisecond; off += 100 * time.Millisecond {
				inWorld(t, "ab", func(w *world) { w.config.Random = func() float64 { return jitter } }, func(w *world) {
					time.Sleep(10*time.Second + off) // of the bubble
					w.expect("a:Up b:Up")
					w.byte(w.a)
					w.peers[w.a].set(fault)
					worst = max(worst, w.until("a:Down,cut b:Up", bound))
				})
			}
		}
		t.Logf("%s: found after %v at most", name, worst)
		if worst < 2*time.Second {
			t.Errorf("%s: found after %v: two tries take longer", name, worst)
		}
	}
}

// TestHangOfSlowIsFoundInTime stops a backend that is slow already, and has just sent a byte, at any moment.
func TestHangOfSlowIsFoundInTime(t *testing.T) {
	ways := map[string]func(*peer){
		"answers late":       func(p *peer) { p.delay = 20 * time.Second },
		"handshakes do hang": func(p *peer) { p.answer, p.way = raw(""), blackhole },
	}
	for name, slow := range ways {
		worst := time.Duration(0)
		for _, jitter := range jitters {
			for off := 10 * time.Millisecond; off < 6*time.Second; off += 100 * time.Millisecond {
				inWorld(t, "ab", func(w *world) { w.config.Random = func() float64 { return jitter } }, func(w *world) {
					time.Sleep(10 * time.Second) // of the bubble
					w.peers[w.a].set(slow)
					for range off / (10 * time.Millisecond) {
						time.Sleep(10 * time.Millisecond) // of the bubble
						w.byte(w.a)
					}
					w.peers[w.a].stop()
					worst = max(worst, w.until("a:Down,cut b:Up", bound))
				})
			}
		}
		t.Logf("%s: found after %v at most", name, worst)
	}
}

// TestHandshakeHangsButSessionsDoNot is an API server under such a load that handshakes take long: its sessions must not be lost.
func TestHandshakeHangsButSessionsDoNot(t *testing.T) {
	inWorld(t, "ab", nil, func(w *world) {
		time.Sleep(5 * time.Second) // of the bubble
		w.peers[w.a].set(func(p *peer) { p.running, p.way = make(chan struct{}), blackhole })
		for range 60 {
			time.Sleep(time.Second / 2) // of the bubble
			w.byte(w.a)
		}
		w.expect("a:Draining b:Up")
		if strings.Contains(w.all(), "Down") {
			t.Errorf("it was down: %s", w.all())
		}
		w.until("a:Down,cut b:Up", bound)
	})
}

// TestReturns has a backend go on after it was stopped.
func TestReturns(t *testing.T) {
	inWorld(t, "ab", nil, func(w *world) {
		time.Sleep(5 * time.Second) // of the bubble
		w.peers[w.a].stop()
		w.until("a:Down,cut b:Up", bound)
		time.Sleep(20 * time.Second) // of the bubble
		w.peers[w.a].cont()
		if took := w.until("a:Up b:Up", 10*time.Second); took > 2500*time.Millisecond {
			t.Errorf("it took %v", took)
		}
	})
}

func TestRefused(t *testing.T) {
	inWorld(t, "ab", nil, func(w *world) {
		time.Sleep(5 * time.Second) // of the bubble
		w.peers[w.a].set(func(p *peer) { p.way = refuses })
		w.peers[w.a].drop()
		if took := w.until("a:Down b:Up", 2*time.Second); took > 1300*time.Millisecond {
			t.Errorf("it took %v until it was down", took)
		}
		if took := w.until("a:Down,cut b:Up", 10*time.Second); took < 4900*time.Millisecond || took > 6300*time.Millisecond {
			t.Errorf("it took %v until it was cut", took)
		}
	})
}

// TestAllRed is what an etcd that stalls looks like.
func TestAllRed(t *testing.T) {
	inWorld(t, "abc", nil, func(w *world) {
		time.Sleep(5 * time.Second) // of the bubble
		for _, p := range w.peers {
			p.set(func(p *peer) { p.answer = status(500, "[-]etcd failed") })
		}
		w.until("a:Draining,open b:Draining,open c:Draining,open", 3*time.Second)
		for _, p := range w.peers {
			p.set(func(p *peer) { p.answer = status(200, "ok") })
		}
		w.until("a:Up b:Up c:Up", 3*time.Second)
		if strings.Contains(w.all(), "cut") {
			t.Errorf("some were cut: %s", w.all())
		}
	})
}

// TestAllHang wants none to be cut in the end, and all to be used.
func TestAllHang(t *testing.T) {
	inWorld(t, "ab", nil, func(w *world) {
		time.Sleep(5 * time.Second) // of the bubble
		w.peers[w.a].stop()
		w.peers[w.b].stop()
		w.until("a:Down,open b:Down,open", 5*time.Second)
		time.Sleep(time.Minute) // of the bubble
		w.expect("a:Down,open b:Down,open")
	})
}

// TestManyHang stops all but one or two at once: that is a rack without power, and not a crowd of clients.
func TestManyHang(t *testing.T) {
	for letters, live := range map[string]int{"abcde": 2, "abcdefghijklmnopqrstuvwxyz": 1} {
		inWorld(t, letters, nil, func(w *world) {
			time.Sleep(5 * time.Second) // of the bubble
			var want []string
			for i, addr := range backendsOf(letters) {
				if i < live {
					want = append(want, letters[i:i+1]+":Up")
					continue
				}
				w.peers[addr].stop()
				want = append(want, letters[i:i+1]+":Down,cut")
			}
			w.until(strings.Join(want, " "), bound)
		})
	}
}

// TestKeptConnection counts handshakes and requests.
func TestKeptConnection(t *testing.T) {
	inWorld(t, "a", nil, func(w *world) {
		time.Sleep(11 * time.Second) // of the bubble
		if dials, asked, open := w.peers[w.a].counts(); dials != 1 || asked < 9 || asked > 14 || open != 1 {
			t.Errorf("%d dials, %d requests, %d open in 11 s", dials, asked, open)
		}
		time.Sleep(589 * time.Second) // of the bubble
		if dials, asked, open := w.peers[w.a].counts(); dials < 30 || dials > 50 || asked < 540 || asked > 660 || open != 1 {
			t.Errorf("%d dials, %d requests, %d open in 10 min", dials, asked, open)
		}
		if strings.Contains(w.all(), ":D") {
			t.Errorf("told were %s", w.all())
		}
	})
}

// TestNewConnections has something be wrong with new connections alone, while the kept one is answered.
func TestNewConnections(t *testing.T) {
	another := newAuthority(t).leaf(t, time.Time{})
	for name, c := range map[string]struct {
		change func(*peer)
		want   string
		last   health.Result
	}{
		"another CA":                {func(p *peer) { p.tls = &tls.Config{Certificates: []tls.Certificate{another}} }, "a:Draining b:Up", health.Untrusted},
		"no TLS":                    {func(p *peer) { p.way = garbage }, "a:Draining b:Up", health.Red},
		"refused":                   {func(p *peer) { p.way = refuses }, "a:Down b:Up", health.Refused},
		"too slow":                  {func(p *peer) { p.way = mute }, "a:Draining b:Up", health.Slow},
		"queue full":                {func(p *peer) { p.way = blackhole }, "a:Draining b:Up", health.Slow},
		"no descriptors of our own": {func(p *peer) { p.way = lacking }, "a:Up b:Up", health.Ready},
	} {
		t.Run(name, func(t *testing.T) {
			inWorld(t, "ab", nil, func(w *world) {
				time.Sleep(5 * time.Second) // of the bubble
				w.peers[w.a].set(c.change)
				if c.want == "a:Up b:Up" {
					time.Sleep(time.Minute) // of the bubble
				} else {
					w.until(c.want, 25*time.Second)
				}
				w.expect(c.want)
				if v := w.verdict(w.a); v.Last != c.last {
					t.Errorf("it is %+v, want %v", v, c.last)
				}
			})
		})
	}
}

// TestRestartBetweenProbes closes the kept connection a few times: each time a new one must be made at once, without a failure.
func TestRestartBetweenProbes(t *testing.T) {
	inWorld(t, "ab", nil, func(w *world) {
		for range 10 {
			for range 200 {
				time.Sleep(10 * time.Millisecond) // of the bubble
				if v := w.verdict(w.a); v.Last != health.Ready {
					t.Fatalf("it is %+v", v)
				}
			}
			w.peers[w.a].drop()
		}
		time.Sleep(2 * time.Second) // of the bubble
		if dials, _, _ := w.peers[w.a].counts(); dials != 11 {
			t.Errorf("%d dials, want 11", dials)
		}
		if strings.Contains(w.all(), ":D") {
			t.Errorf("told were %s", w.all())
		}
	})
}

// TestOneMomentIsOneFailure has two tries fail if they are made in one moment.
func TestOneMomentIsOneFailure(t *testing.T) {
	inWorld(t, "ab", nil, func(w *world) {
		time.Sleep(5 * time.Second) // of the bubble
		w.peers[w.a].set(func(p *peer) { p.way = noRoute })
		w.peers[w.a].drop()
		for w.verdict(w.a).Last == health.Ready {
			time.Sleep(10 * time.Millisecond) // of the bubble
		}
		w.peers[w.a].set(func(p *peer) { p.way = works })
		time.Sleep(5 * time.Second) // of the bubble
		if strings.Contains(w.all(), ":D") {
			t.Errorf("told were %s", w.all())
		}
	})
}

// TestRunEndsAtOnce ends the checker while tries hang; inWorld measures how long that takes.
func TestRunEndsAtOnce(t *testing.T) {
	for _, fault := range []way{works, blackhole} {
		for _, at := range []time.Duration{time.Second, 2 * time.Second, 3 * time.Second} {
			inWorld(t, "a", nil, func(w *world) {
				time.Sleep(5 * time.Second) // of the bubble
				w.peers[w.a].set(func(p *peer) { p.running, p.way = make(chan struct{}), fault })
				time.Sleep(at) // of the bubble
			})
		}
	}
}

// TestSetSame wants no word of a set that is the same.
func TestSetSame(t *testing.T) {
	inWorld(t, "ab", nil, func(w *world) {
		time.Sleep(5 * time.Second) // of the bubble
		before := w.all()
		w.checker.Set(backendsOf("ba"))
		time.Sleep(5 * time.Second) // of the bubble
		if now := w.all(); now != before {
			t.Errorf("told were %s, and then %s", before, now)
		}
	})
}

// TestJitter wants probes to come a fifth earlier or later than each second, and those of backends not together.
func TestJitter(t *testing.T) {
	inWorld(t, "ab", nil, func(w *world) {
		time.Sleep(100 * time.Second) // of the bubble
		synctest.Wait()
		least, most := time.Hour, time.Duration(0)
		p := w.peers[w.a]
		for i := range p.when[1:] {
			gap := p.when[i+1].Sub(p.when[i])
			least, most = min(least, gap), max(most, gap)
		}
		if least < 800*time.Millisecond || most > 1200*time.Millisecond || most-least < 200*time.Millisecond {
			t.Errorf("gaps of %v to %v", least, most)
		}
		if p.when[50].Equal(w.peers[w.b].when[50]) {
			t.Error("both are probed together")
		}
	})
}

// TestCertificateExpires has that of a kept connection expire: clients will be told as well.
func TestCertificateExpires(t *testing.T) {
	ca := newAuthority(t)
	cert := ca.leaf(t, time.Date(2000, 1, 1, 0, 0, 30, 0, time.UTC))
	change := func(w *world) {
		w.peers[w.a].tls = &tls.Config{Certificates: []tls.Certificate{cert}}
		trust := &tls.Config{RootCAs: ca.pool()}
		w.config.TLS = func(context.Context) (*tls.Config, error) { return trust, nil }
	}
	inWorld(t, "a", change, func(w *world) {
		time.Sleep(29 * time.Second) // of the bubble
		w.expect("a:Up")
		time.Sleep(4 * time.Second) // of the bubble: a probe may begin after a second, and take one, as the alert is not read
		w.expect("a:Draining,open")
		if v := w.verdict(w.a); v.Last != health.Untrusted || !strings.Contains(v.Reason, "expired") {
			t.Errorf("the reason is %q", v.Reason)
		}
	})
}

// TestSetWhileProbing takes a backend away while a probe of it hangs.
func TestSetWhileProbing(t *testing.T) {
	inWorld(t, "ab", nil, func(w *world) {
		time.Sleep(5 * time.Second) // of the bubble
		w.peers[w.a].stop()
		time.Sleep(2100 * time.Millisecond) // of the bubble: in the middle of a try
		w.checker.Set(backendsOf("b"))
		synctest.Wait()
		w.peers[w.a].cont()
		synctest.Wait()
		w.expect("b:Up")
		dials, _, open := w.peers[w.a].counts()
		if open != 0 {
			t.Errorf("%d connections are left", open)
		}
		time.Sleep(time.Minute) // of the bubble
		if now, _, _ := w.peers[w.a].counts(); now != dials {
			t.Errorf("%d dials after it was taken away", now-dials)
		}
		w.checker.Set(backendsOf("ab"))
		w.until("a:Up b:Up", 0)
	})
}

// TestSetAgain takes a backend away and back in one moment: it is a new one.
func TestSetAgain(t *testing.T) {
	inWorld(t, "a", nil, func(w *world) {
		w.peers[w.a].set(func(p *peer) { p.way = refuses })
		time.Sleep(5 * time.Second) // of the bubble
		w.peers[w.a].set(func(p *peer) { p.way = works })
		w.checker.Set(nil)
		w.checker.Set(backendsOf("a"))
		synctest.Wait()
		if v := w.verdict(w.a); v.State != health.Up || !v.Proven {
			t.Errorf("it is %+v", v)
		}
	})
}

// TestBadClient reports in the name of a client that makes trouble while all is well.
func TestBadClient(t *testing.T) {
	inWorld(t, "ab", nil, func(w *world) {
		time.Sleep(5 * time.Second) // of the bubble
		_, before, _ := w.peers[w.a].counts()
		for range 1000 {
			w.checker.Report(w.a, health.Hung)
			w.checker.Report(w.a, health.Broken)
			w.checker.Report(w.a, health.Unreachable)
			time.Sleep(10 * time.Millisecond) // of the bubble
		}
		if _, asked, _ := w.peers[w.a].counts(); asked-before < 40 || asked-before > 52 {
			t.Errorf("%d probes in 10 s, want 50", asked-before)
		}
		w.expect("a:Up b:Up")
		if strings.Contains(w.all(), ":D") {
			t.Errorf("told were %s", w.all())
		}
		w.checker.Report(netip.MustParseAddrPort("192.0.2.99:1"), health.Refused) // of one that is gone
	})
}

// TestReportProbes wants a probe at once, on a new connection.
func TestReportProbes(t *testing.T) {
	inWorld(t, "ab", func(w *world) { w.config.Interval = time.Minute }, func(w *world) {
		time.Sleep(5 * time.Second) // of the bubble
		w.checker.Report(w.a, health.Hung)
		synctest.Wait()
		if dials, asked, open := w.peers[w.a].counts(); dials != 2 || asked != 2 || open != 1 {
			t.Errorf("%d dials, %d requests, %d open", dials, asked, open)
		}
		w.peers[w.a].stop()
		w.checker.Report(w.a, health.Hung)
		if took := w.until("a:Down,cut b:Up", bound); took > 1300*time.Millisecond {
			t.Errorf("what a session and a probe saw took %v to count", took)
		}
	})
}

// TestReportRefused counts by itself, and what is Down is not probed more often for it.
func TestReportRefused(t *testing.T) {
	inWorld(t, "ab", nil, func(w *world) {
		time.Sleep(5 * time.Second) // of the bubble
		w.peers[w.a].set(func(p *peer) { p.way = refuses })
		w.checker.Report(w.a, health.Refused)
		synctest.Wait()
		w.expect("a:Down b:Up")
		before, _, _ := w.peers[w.a].counts()
		for range 1000 {
			w.checker.Report(w.a, health.Refused)
			time.Sleep(10 * time.Millisecond) // of the bubble
		}
		if dials, _, _ := w.peers[w.a].counts(); dials-before > 14 {
			t.Errorf("%d dials in 10 s", dials-before)
		}
	})
}

// TestOurOwnFault fails to read credentials: nothing is probed, and the log says so once.
func TestOurOwnFault(t *testing.T) {
	fails := errors.New("no such file")
	tests := map[string]func(*world){
		"CA":    func(w *world) { w.config.TLS = func(context.Context) (*tls.Config, error) { return nil, fails } },
		"token": func(w *world) { w.config.Token = func() (string, error) { return "", fails } },
		"lines": func(w *world) { w.config.Token = func() (string, error) { return "a\r\nb", nil } },
	}
	for name, change := range tests {
		inWorld(t, "a", change, func(w *world) {
			time.Sleep(10 * time.Second) // of the bubble
			w.expect("a:Up?")
			if v := w.verdict(w.a); !strings.HasPrefix(v.Reason, "cannot be probed: ") {
				t.Errorf("%s: the reason is %q", name, v.Reason)
			}
			if n := strings.Count(w.log.String(), "cannot be probed"); n != 1 {
				t.Errorf("%s: logged %d times: %s", name, n, w.log)
			}
		})
	}
}

// TestDialErrors has errors of our own and of the backend's in forms that a dialer gives them.
func TestDialErrors(t *testing.T) {
	tests := map[syscall.Errno]health.Result{
		syscall.ECONNREFUSED: health.Refused, syscall.EHOSTUNREACH: health.Unreachable, syscall.ENETUNREACH: health.Unreachable,
		syscall.ETIMEDOUT: health.Unreachable, syscall.ECONNRESET: health.Broken, syscall.EADDRNOTAVAIL: health.Unknown,
		syscall.EMFILE: health.Unknown, syscall.ENOBUFS: health.Unknown,
	}
	for errno, want := range tests {
		change := func(w *world) {
			w.config.Dial = func(context.Context, netip.AddrPort) (net.Conn, error) { return nil, refusal(errno) }
		}
		inWorld(t, "a", change, func(w *world) {
			time.Sleep(3 * time.Second) // of the bubble
			if v := w.verdict(w.a); want != health.Unknown && v.Last != want || want == health.Unknown && v.State != health.Up {
				t.Errorf("%v: %+v", errno, v)
			}
		})
	}
}

// TestStrings has a name for each value.
func TestStrings(t *testing.T) {
	seen := map[string]bool{}
	for r := health.Unknown; r <= health.Refused; r++ {
		seen[r.String()] = true
	}
	if got := fmt.Sprint(health.Up, health.Draining, health.Down); got != "Up Draining Down" || len(seen) != 11 {
		t.Errorf("%s, %v", got, seen)
	}
}

// TestLogLevels wants only what is worse than before to be a warning.
func TestLogLevels(t *testing.T) {
	inWorld(t, "ab", nil, func(w *world) {
		time.Sleep(5 * time.Second) // of the bubble
		w.peers[w.a].stop()
		w.until("a:Down,cut b:Up", bound)
		w.peers[w.a].cont()
		w.until("a:Up b:Up", 10*time.Second)
		synctest.Wait()
		warned := 0
		for line := range strings.Lines(w.log.String()) {
			if warns := strings.Contains(line, "level=WARN"); warns != strings.Contains(line, "cut=true") {
				t.Errorf("logged: %s", line)
			} else if warns {
				warned++
			}
		}
		if warned != 1 {
			t.Errorf("%d warnings, want 1: %s", warned, w.log)
		}
	})
}
