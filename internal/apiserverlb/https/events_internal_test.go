package https

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"strings"
	"testing"

	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"

	"varco.dev/internal/httpproxy/vouch"
)

// TestEventsEnd wants the ends of events to be found, however they are cut on the way.
func TestEventsEnd(t *testing.T) {
	var framed bytes.Buffer
	for _, size := range []int{3, 0, 300, 70_000} {
		if _, err := protobuf.LengthDelimitedFramer.NewFrameWriter(&framed).Write(bytes.Repeat([]byte{'\n'}, size)); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		kind, encoding, content string
		ends                    []int
	}{
		{kind: "application/json", content: "{}\n{\"a\":1}\n{", ends: []int{3, 11}},
		{kind: "application/json;stream=watch", content: "{}", ends: nil},
		{kind: "application/vnd.kubernetes.protobuf;stream=watch", content: framed.String(), ends: []int{7, 11, 315, 70_319}},
		{kind: "application/vnd.kubernetes.protobuf;stream=watch", content: framed.String()[:9], ends: []int{7}},
		{kind: "application/cbor-seq", content: "ab", ends: []int{1, 2}},
		{kind: "application/json", encoding: "gzip", content: "ab", ends: []int{1, 2}},
	} {
		h := http.Header{"Content-Type": {c.kind}}
		if c.encoding != "" {
			h.Set("Content-Encoding", c.encoding)
		}
		for _, size := range []int{1, 2, 5, 4096, 1 << 20} {
			e := events{form: formOf(h)}
			for at := 0; at < len(c.content); at += size {
				to := min(at+size, len(c.content))
				want := -1
				for _, end := range c.ends {
					if at < end && end <= to {
						want = end - at
					}
				}
				if e.form == unknownForm {
					want = to - at
				}
				if got := e.last([]byte(c.content[at:to])); got != want {
					t.Fatalf("%s: of %d to %d: got %d, want %d", c.kind, at, to, got, want)
				}
			}
		}
	}
}

// TestShedAfterWholeEvents wants a watch that is to go on elsewhere to end between two events.
func TestShedAfterWholeEvents(t *testing.T) {
	for _, c := range []struct {
		name          string
		before, after []string // what comes before and after it is told to end
		want          string
		cancelled     bool // at once
	}{
		{name: "nothing has come", after: []string{"{}\n"}, want: "", cancelled: true},
		{name: "between two", before: []string{"{1}\n"}, after: []string{"{2}\n"}, want: "{1}\n", cancelled: true},
		{name: "within one", before: []string{"{1}\n{2"}, after: []string{"2", "2}\n{3", "}\n"}, want: "{1}\n{222}\n"},
		{name: "within one that breaks", before: []string{"{1}\n{2"}, want: "{1}\n{2"},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithCancelCause(t.Context())
			f := &flight{kind: vouch.Watching, from: t.Context(), cancel: cancel}
			r, w := io.Pipe()
			b := &watchBody{ReadCloser: r, f: f, events: events{form: lines}}
			var got strings.Builder
			write := func(parts []string) {
				for _, part := range parts {
					io.WriteString(w, part) // fails when nobody reads any more
				}
			}
			buf := make([]byte, 100)
			go write(c.before)
			for range c.before {
				n, _ := b.Read(buf)
				got.Write(buf[:n])
			}
			b.shed()
			if (ctx.Err() != nil) != c.cancelled {
				t.Errorf("cancelled: %v", ctx.Err())
			}
			go func() { write(c.after); w.CloseWithError(io.ErrUnexpectedEOF) }()
			rest, err := io.ReadAll(b)
			got.Write(rest)
			r.Close()
			if got.String() != c.want || err != nil {
				t.Errorf("got %q %v, want %q", got.String(), err, c.want)
			}
		})
	}
}
