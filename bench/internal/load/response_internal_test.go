package load

import (
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

func TestComplete(t *testing.T) {
	const (
		head    = "HTTP/1.1 200 OK\r\nDate: now\r\n"
		counted = head + "content-length:  5 \r\nX: y\r\n\r\nhello"
		chunked = head + "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\na\r\n0123456789\r\n0\r\n\r\n"
		empty   = head + "Content-Length: 0\r\n\r\n"
	)
	for name, response := range map[string]string{"counted": counted, "chunked": chunked, "empty": empty} {
		for n := range response {
			if got, _, err := complete([]byte(response[:n])); got != 0 || err != nil {
				t.Errorf("%s, its first %d bytes: got %d, %v, want 0", name, n, got, err)
			}
		}
		if got, ok, err := complete([]byte(response + "more")); got != len(response) || !ok || err != nil {
			t.Errorf("%s: got %d, %t, %v, want %d", name, got, ok, err, len(response))
		}
	}
	const failed = "HTTP/1.1 502 Bad Gateway\r\nContent-Length: 2\r\n\r\nno"
	if got, ok, err := complete([]byte(failed)); got != len(failed) || ok || err != nil {
		t.Errorf("another status: got %d, %t, %v, want its length and no success", got, ok, err)
	}
	for name, bad := range map[string]string{
		"another protocol":           "HTTP/1.0 200 OK\r\nContent-Length: 0\r\n\r\n",
		"no length":                  head + "\r\n",
		"a length of no number":      head + "Content-Length: many\r\n\r\n",
		"a length below zero":        head + "Content-Length: -1\r\n\r\n",
		"a chunk of no length":       head + "Transfer-Encoding: chunked\r\n\r\nhello\r\n",
		"a chunk beyond all reasons": head + "Transfer-Encoding: chunked\r\n\r\nffffffffffffffff\r\n",
	} {
		if got, _, err := complete([]byte(bad)); !errors.Is(err, errOdd) {
			t.Errorf("%s: got %d, %v, want an error", name, got, err)
		}
	}
}

func FuzzComplete(f *testing.F) {
	f.Add("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
	f.Add("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc")
	f.Fuzz(func(t *testing.T, b string) {
		n, _, err := complete([]byte(b))
		if n < 0 || n > len(b) || n > 0 && (err != nil || !strings.Contains(b[:n], "\r\n\r\n")) {
			t.Errorf("got %d, %v of %d bytes", n, err, len(b))
		}
	})
}

func TestTookCountsWhatHappenedInTime(t *testing.T) {
	at := func(ms int) time.Time { return time.UnixMilli(int64(ms)) }
	events := []seen{{at(99), at(101)}, {at(100), at(107)}, {at(199), at(300)}, {at(200), at(201)}}
	want := []time.Duration{7 * time.Millisecond, 101 * time.Millisecond}
	if d := cmp.Diff(want, took(events, at(100), at(200))); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}
