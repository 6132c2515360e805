package discovery_test

import (
	"errors"
	"net/netip"
	"path/filepath"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/backend/discovery"
)

// seeds are a configuration of an address and a name.
func seeds(w *watched) discovery.Config {
	return discovery.Config{Static: static("10.0.0.1:6443@a", "api:6443@b"), Slices: w.slices}
}

// TestSlicesTakeThePlaceOfSeeds follows the EndpointSlices from before they are known to when all servers are others.
func TestSlicesTakeThePlaceOfSeeds(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		s := start(t, seeds(w), replies("api", reply{addrs: "10.0.0.2"}))
		s.want("before they answer", "10.0.0.1:6443@a static", "10.0.0.2:6443@b dns api")
		w.say("")
		s.want("an empty first answer", "10.0.0.1:6443@a static", "10.0.0.2:6443@b dns api")
		w.say("10.0.0.2:6443 10.0.0.3:6443 [::ffff:10.0.0.2]:6443")
		s.want("they answer, zones are kept", "10.0.0.2:6443@b kubernetes", "10.0.0.3:6443 kubernetes")
		if got := s.Sources(); len(got) != 2 || len(got[1].Addrs) != 2 {
			t.Errorf("sources %v", got)
		}
		w.say("10.0.0.3:6443")
		s.want("they shrink", "10.0.0.3:6443 kubernetes")
		w.say("")
		s.want("they are empty", "10.0.0.3:6443 kubernetes")
		s.resolver.set("api", reply{addrs: "10.0.0.9"})
		s.period()
		s.want("a name changes, which does not count", "10.0.0.3:6443 kubernetes")
		w.say("0.0.0.0:6443")
		s.want("none of them can be used", "10.0.0.3:6443 kubernetes")
		w.say("[fd00::7]:6443 [fd00::8]:6443")
		s.want("all are others", "[fd00::7]:6443 kubernetes", "[fd00::8]:6443 kubernetes")
		w.say("[fd00::8]:6443 [fd00::7]:6443")
		if len(s.told) != 5 {
			t.Errorf("told %q", s.told)
		}
		if got := s.log.count("level=WARN"); got != 2 {
			t.Errorf("%d warnings: %s", got, s.log.text.String())
		}
	})
}

// Slices that return too soon are called again; what they said counts on. That they fail is said once.
func TestSlicesThatEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		s := start(t, seeds(w))
		w.ends <- nil
		synctest.Wait()
		s.want("at first", "10.0.0.1:6443@a static")
		time.Sleep(5*time.Second + time.Millisecond) // the bubble's clock
		w.ends <- errors.New("no kubeconfig yet")
		time.Sleep(5*time.Second + time.Millisecond) // the bubble's clock
		w.say("10.0.0.3:6443")
		s.want("then", "10.0.0.3:6443 kubernetes")
		w.ends <- errors.New("again")
		synctest.Wait()
		s.want("lost", "10.0.0.3:6443 kubernetes")
		if starts, said := w.starts, s.log.count("source=kubernetes"); starts != 3 || said != 3 || s.log.count(`error="it ended"`) != 1 { // fails, is back, fails
			t.Errorf("%d starts, %d lines: %s", starts, said, s.log.text.String())
		}
		if got := s.Sources(); len(got) != 2 || got[1].Name != "kubernetes" || got[1].Err == nil || len(got[1].Addrs) != 1 {
			t.Errorf("sources %v", got)
		}
	})
}

// TestRescue has no server of the EndpointSlices work: seeds count too, until the slices say something else.
func TestRescue(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		s := start(t, seeds(w), replies("api", reply{addrs: "10.0.0.2"}))
		rescue := func() {
			s.Rescue()
			synctest.Wait()
		}
		rescue()
		s.want("before they answer", "10.0.0.1:6443@a static", "10.0.0.2:6443@b dns api")
		w.say("10.0.0.3:6443")
		s.want("they answer; what was said before is not of them", "10.0.0.3:6443 kubernetes")
		rescue()
		rescue()
		all := []string{"10.0.0.1:6443@a static", "10.0.0.2:6443@b dns api", "10.0.0.3:6443 kubernetes"}
		s.want("rescued", all...)
		w.say("")
		s.want("they are empty", all...)
		w.say("10.0.0.3:6443")
		s.want("they say what does not work", all...)
		w.say("10.0.0.1:6443 10.0.0.4:6443")
		s.want("they say something else", "10.0.0.1:6443@a kubernetes", "10.0.0.4:6443 kubernetes")
		w.say("10.0.0.3:6443")
		s.want("and what did not work then", "10.0.0.3:6443 kubernetes")
		rescue()
		s.want("rescued again", all...)
		if got := s.log.count("no API server works"); got != 2 {
			t.Errorf("said %d times: %s", got, s.log.text.String())
		}
	})
}

// Run ends while slices have something to say and nobody to hear it.
func TestEndsWithSlices(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		s := start(t, seeds(w))
		s.end()
		s.Rescue() // blocks for nobody
		s.Rescue()
		select {
		case w.changes <- addrPorts("10.0.0.3:6443"):
			t.Error("slices are watched on")
		default:
		}
	})
}

// TestAfter has a new configuration take the place of another.
func TestAfter(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		w := newWatched()
		old := start(t, seeds(w), replies("api", reply{addrs: "10.0.0.2"}))
		w.say("10.0.0.3:6443")
		old.end()

		c := seeds(newWatched())
		c.After, c.CacheFile = old.Discovery, filepath.Join(t.TempDir(), "cache.json")
		write(t, c.CacheFile, `{"version": 1, "sources": {"kubernetes": ["10.0.0.99:6443"]}}`) // older than what is known
		s := start(t, c)
		s.want("slices are known", "10.0.0.3:6443 kubernetes")
		s.end()

		c = discovery.Config{Static: static("api:6443@c"), After: s.Discovery}
		s = start(t, c)
		s.want("no slices any more; a name is known that does not answer now", "10.0.0.2:6443@c dns api")
		s.end()

		c = discovery.Config{Static: static("api:443", "10.0.0.5:6443"), After: s.Discovery}
		s = start(t, c)
		s.want("nothing of a name with another port", "10.0.0.5:6443 static")
	})
}

// All sources fail at the start, but the file knows.
func TestStartWithAllAway(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "cache.json")
		w := newWatched()
		c := seeds(w)
		c.CacheFile = file
		s := start(t, c, replies("api", reply{addrs: "10.0.0.2"}))
		w.say("10.0.0.3:6443 [fd00::3]:6443")
		s.end()

		w = newWatched()
		c.Slices = w.slices
		s = start(t, c, replies("api", reply{err: errHang}))
		s.want("at once", "10.0.0.1:6443@a static", "10.0.0.2:6443@b cache", "10.0.0.3:6443 cache", "[fd00::3]:6443 cache")
		if got := s.Sources(); len(got) != 2 || !got[1].Answered.IsZero() || len(got[1].Addrs) != 2 {
			t.Errorf("sources %v", got)
		}
		s.period()
		s.want("after a period", "10.0.0.1:6443@a static", "10.0.0.2:6443@b cache", "10.0.0.3:6443 cache", "[fd00::3]:6443 cache")
		s.resolver.set("api", reply{addrs: "10.0.0.4"})
		s.period()
		s.want("the name is back", "10.0.0.1:6443@a static", "10.0.0.3:6443 cache", "10.0.0.4:6443@b dns api", "[fd00::3]:6443 cache")
		w.say("10.0.0.4:6443")
		s.want("the API server is back", "10.0.0.4:6443@b kubernetes")
		s.end()

		c.Slices = nil
		c.Static = static("api:6443")
		s = start(t, c, replies("api", reply{err: errServer()}))
		s.want("what the configuration does not name any more is forgotten", "10.0.0.4:6443 cache")
		s.end()

		c.Own = func(a netip.AddrPort) bool { return a == netip.MustParseAddrPort("10.0.0.4:6443") }
		s = start(t, c, replies("api", reply{err: errServer()}))
		s.want("the own listeners are not taken from the file")
	})
}
