package feed

import (
	"bytes"
	"errors"
	"log/slog"
	"testing"
	"testing/synctest"
	"time"

	"github.com/google/go-cmp/cmp"
)

// TestContact plays requests and their answers, and reads what the log says.
func TestContact(t *testing.T) {
	refused := errors.New("connection refused")
	const lost, back = "level=WARN msg=\"lost the API server, traffic goes on as it last said\" error=", "level=INFO msg=\"the API server is back\" after="
	for _, c := range []struct {
		name string
		play func(*Contact)
		want string
	}{
		{"a watch that is begun again", func(c *Contact) {
			c.Begin("Service")
			later(time.Second)
			c.End("Service", nil)
			later(time.Hour)
		}, ""},
		{"away, but not for long", func(c *Contact) {
			c.Begin("Service")
			c.End("Service", refused)
			later(9 * time.Second)
			c.Begin("Service")
			c.End("Service", nil)
			later(time.Hour)
		}, ""},
		{"away, told once, and back", func(c *Contact) {
			for range 10 {
				for _, kind := range []string{"Service", "Node"} {
					c.Begin(kind)
					c.End(kind, refused)
				}
				later(8 * time.Second)
			}
			c.End("Service", nil)
			later(5 * time.Second)
			c.End("Node", nil)
			later(time.Hour)
		}, lost + "\"connection refused\"\n" + back + "1m25s\n"},
		{"no answer", func(c *Contact) {
			c.Begin("Service")
			later(time.Minute)
		}, lost + "\"it does not answer\"\n"},
		{"away twice", func(c *Contact) {
			for range 2 {
				c.Begin("Service")
				c.End("Service", refused)
				later(20 * time.Second)
				c.End("Service", nil)
				later(time.Minute)
			}
		}, lost + "\"connection refused\"\n" + back + "20s\n" + lost + "\"connection refused\"\n" + back + "20s\n"},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				var log bytes.Buffer
				contact := NewContact(slog.New(slog.NewTextHandler(&log, &slog.HandlerOptions{ReplaceAttr: plain})))
				go contact.Follow(t.Context())
				c.play(contact)
				synctest.Wait()
				if diff := cmp.Diff(c.want, log.String()); diff != "" {
					t.Errorf("(-want +got)\n%s", diff)
				}
			})
		})
	}
}

// later lets time go by on the clock of the bubble.
func later(d time.Duration) {
	time.Sleep(d) // the clock is the test's: it takes no time
}

// plain leaves a log line its level, message and values.
func plain(_ []string, a slog.Attr) slog.Attr {
	if a.Key == slog.TimeKey {
		return slog.Attr{}
	}
	return a
}

// TestLostSaysWhy has a request that hangs, after one of another kind that was answered.
func TestLostSaysWhy(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		c := NewContact(slog.New(slog.DiscardHandler))
		c.Begin("Service")
		c.Begin("Node")
		c.End("Node", nil)
		later(time.Minute)
		if since, err := c.Lost(); since.IsZero() || err == nil {
			t.Errorf("lost since %v: %v; want a time and a reason", since, err)
		}
	})
}
