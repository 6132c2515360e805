package rewrite_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"runtime"
	"strings"
	"testing"
	"time"

	"varco.dev/internal/httpproxy/rewrite"
)

// talk is a body whose pieces come when they are sent.
type talk struct {
	pieces chan []byte
	closed chan struct{}
	rest   []byte
	err    error // at the end; nil: io.EOF
}

func newTalk() *talk { return &talk{pieces: make(chan []byte), closed: make(chan struct{})} }

func (s *talk) Read(p []byte) (int, error) {
	if len(s.rest) == 0 {
		select {
		case piece, ok := <-s.pieces:
			if !ok && s.err != nil {
				return 0, s.err
			}
			if !ok {
				return 0, io.EOF
			}
			s.rest = piece
		case <-s.closed:
			return 0, errors.New("closed")
		}
	}
	n := copy(p, s.rest)
	s.rest = s.rest[n:]
	return n, nil
}

func (s *talk) Close() error { close(s.closed); return nil }

// heard reads, decodes, and tells what has come.
func heard(t *testing.T, c testCoding, body io.Reader) <-chan string {
	out := make(chan string)
	go func() {
		defer close(out)
		r, err := c.reader(oneByOne{body})
		if err != nil {
			t.Errorf("%s: %v", c.name, err)
			return
		}
		buf := make([]byte, 1) // zstd's reader waits for as much as there is room for
		for {
			n, err := r.Read(buf)
			if n > 0 {
				out <- string(buf[:n])
			}
			if err != nil {
				return
			}
		}
	}()
	return out
}

// oneByOne has a decoder see each byte as soon as it comes.
type oneByOne struct{ io.Reader }

func (r oneByOne) Read(p []byte) (int, error) { return r.Reader.Read(p[:min(len(p), 1)]) }

// TestStream sends a page piece by piece, and wants each moved before the next is sent.
func TestStream(t *testing.T) {
	for _, c := range codings() {
		t.Run(c.name, func(t *testing.T) {
			source := newTalk()
			resp := encoded(c, source)
			if err := rewrite.Response(resp, at("/x")); err != nil {
				t.Fatal(err)
			}
			out := heard(t, c, resp.Body)
			var packed bytes.Buffer
			e := c.encode(&packed)
			for _, piece := range []struct{ send, want string }{
				{"<", "<"}, {"html><p>1</p>", "html><p>1</p>"}, {`<a title="x" href=`, `<a title="x" href=`}, {`"/on`, `"`}, {`e" class`, `/p/one" class`},
				{">2<!-- ", ">2<!-- "}, {"--", "--"}, {"><script>3", "><script>3"}, {"</script><a href=/x>", `</script><a href="/p/x">`},
				{`<meta content="1;/x"`, `<meta content="`}, {"http-equiv=refresh>", `1;/p/x"http-equiv=refresh>`}, {"<a href='/y", "<a href='"},
			} {
				if _, err := io.WriteString(e, piece.send); err != nil {
					t.Fatal(err)
				}
				if err := e.Flush(); err != nil {
					t.Fatal(err)
				}
				source.pieces <- bytes.Clone(packed.Bytes())
				packed.Reset()
				if got := next(out, len(piece.want)); got != piece.want {
					t.Fatalf("after %s: got %q, want %q", piece.send, got, piece.want)
				}
			}
			if err := e.Close(); err != nil {
				t.Fatal(err)
			}
			if packed.Len() > 0 {
				source.pieces <- packed.Bytes()
			}
			close(source.pieces)
			if got := next(out, 100); got != "/y" {
				t.Errorf("at the end: got %q", got)
			}
		})
	}
}

// next is the next so many bytes, or what comes until the end.
func next(out <-chan string, n int) (got string) {
	for len(got) < n {
		select {
		case piece, ok := <-out:
			if !ok {
				return got
			}
			got += piece
		case <-time.After(10 * time.Second):
			return got + " (and then nothing)"
		}
	}
	return got
}

// TestBroken is that a page that breaks, in whatever way, never seems to be complete.
func TestBroken(t *testing.T) {
	var text []byte // of which half an encoding is worth something
	for i, random := 0, rand.New(rand.NewPCG(1, 2)); i < 5000; i++ {
		text = fmt.Appendf(text, `<p>%x, and <a href="/%x">a link</a> `, random.Uint64(), random.Uint64())
	}
	bad := errors.New("connection reset")
	for _, c := range codings() {
		raw := c.pack(t, text)
		for _, b := range []struct {
			name string
			raw  []byte
			err  error
		}{
			{"cut", raw[:len(raw)-1], io.EOF}, {"cut early", raw[:1], io.EOF}, {"cut in the middle", raw[:len(raw)/2], io.EOF}, {"reset", raw[:len(raw)/2], bad},
			{"reset at the end", raw, bad}, {"more behind it", append(bytes.Clone(raw), "garbage"...), io.EOF}, {"garbage", []byte("\x01garbage that is none of it"), io.EOF},
			{"other bits", other(raw), io.EOF},
		} {
			if b.err == io.EOF && (c.header == "" || c.name == "deflate, raw" && b.name == "other bits") {
				continue // nothing is broken that one could see: there is no sum
			}
			resp := encoded(c, &failing{r: bytes.NewReader(b.raw), err: b.err})
			if err := rewrite.Response(resp, at("/x")); err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			if err == nil {
				t.Errorf("%s, %s: %d bytes without an error", c.name, b.name, len(got))
			}
			if b.err == bad && !errors.Is(err, bad) {
				t.Errorf("%s, %s: got %v", c.name, b.name, err)
			}
			if b.name == "reset" && len(got) == 0 {
				t.Errorf("%s, %s: nothing of what had come before", c.name, b.name)
			}
			if _, again := resp.Body.Read(make([]byte, 1)); again != err {
				t.Errorf("%s, %s: then %v", c.name, b.name, again)
			}
		}
	}
}

// other is a text with some bits changed.
func other(raw []byte) []byte {
	raw = bytes.Clone(raw)
	for i := len(raw) / 3; i < len(raw)/3+20 && i < len(raw); i++ {
		raw[i] ^= 0x5A
	}
	return raw
}

// failing is a body that ends with an error.
type failing struct {
	r      io.Reader
	err    error
	closed int
}

func (f *failing) Read(p []byte) (int, error) {
	n, err := f.r.Read(p)
	if err == io.EOF {
		err = f.err
	}
	return n, err
}

func (f *failing) Close() error { f.closed++; return nil }

// TestEmpty is that an encoded page of no bytes at all, which browsers take for an empty one, is one.
func TestEmpty(t *testing.T) {
	for _, c := range codings() {
		if c.name == "deflate, raw" {
			continue // there is nothing to tell it from the other
		}
		resp := encoded(c, io.NopCloser(strings.NewReader("")))
		if err := rewrite.Response(resp, at("/x")); err != nil {
			t.Fatal(err)
		}
		if got := c.decode(t, resp.Body); len(got) != 0 {
			t.Errorf("%s: got %q", c.name, got)
		}
	}
}

// TestCodings is that larger pages come back in their encoding, links moved.
func TestCodings(t *testing.T) {
	text := strings.Repeat(`<p>some text, and <a href="/x">a link</a></p> `, 20000)
	want := strings.ReplaceAll(text, "/x", "/p/x")
	for _, c := range codings() {
		resp := packed(t, c, []byte(text))
		if err := rewrite.Response(resp, at("/x")); err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		if got := string(c.decode(t, bytes.NewReader(raw))); got != want {
			t.Errorf("%s: got %d bytes, want %d", c.name, len(got), len(want))
		}
		if resp.Header.Get("Content-Encoding") != c.header || c.header != "" && len(raw) > len(want)/20 {
			t.Errorf("%s: %d bytes have become %d", c.name, len(text), len(raw))
		}
	}
}

// TestTrickle is that nothing is flushed when nothing has come: a page that comes byte by byte is not larger for it than its
// blocks are.
func TestTrickle(t *testing.T) {
	text := []byte(strings.Repeat(`<p>some text, and <a href="/x">a link</a></p> `, 5000))
	for _, c := range codings() {
		resp := encoded(c, io.NopCloser(oneByOne{bytes.NewReader(c.pack(t, text))}))
		if err := rewrite.Response(resp, at("/x")); err != nil {
			t.Fatal(err)
		}
		raw, err := io.ReadAll(resp.Body)
		if err != nil {
			t.Fatal(err)
		}
		whole := packed(t, c, text)
		if err := rewrite.Response(whole, at("/x")); err != nil {
			t.Fatal(err)
		}
		want, err := io.ReadAll(whole.Body)
		if err != nil {
			t.Fatal(err)
		}
		if len(raw) > len(want)+len(want)/4+100 {
			t.Errorf("%s: %d bytes, but %d when all comes at once", c.name, len(raw), len(want))
		}
	}
}

// TestGzipMembers is that a page of several gzip members, as some servers make of several parts, is one.
func TestGzipMembers(t *testing.T) {
	c := codings()[1]
	resp := encoded(c, io.NopCloser(bytes.NewReader(append(c.pack(t, []byte("<a hr")), c.pack(t, []byte(`ef="/x">`))...))))
	if err := rewrite.Response(resp, at("/x")); err != nil {
		t.Fatal(err)
	}
	if got := c.decode(t, resp.Body); string(got) != moved {
		t.Errorf("got %s", got)
	}
}

// TestWindow is that a page is refused whose window is larger than HTTP allows (RFC 9659).
func TestWindow(t *testing.T) {
	frame := []byte{0x28, 0xB5, 0x2F, 0xFD, 0, 14 << 3, 1, 0, 0} // a window of 16 MiB, and an empty last block
	resp := encoded(codings()[6], io.NopCloser(bytes.NewReader(frame)))
	if err := rewrite.Response(resp, at("/x")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadAll(resp.Body); err == nil || !strings.Contains(err.Error(), "window") {
		t.Errorf("got %v", err)
	}
}

// TestClose is that a body which is closed, whenever that is, closes the target's, and leaves nothing behind.
func TestClose(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, c := range codings() {
		raw := c.pack(t, []byte(strings.Repeat(link, 10000)))
		for _, reads := range []int{0, 1, 3, 1 << 20} {
			source := &failing{r: oneByOne{bytes.NewReader(raw)}, err: io.EOF}
			resp := encoded(c, source)
			if err := rewrite.Response(resp, at("/x")); err != nil {
				t.Fatal(err)
			}
			buf := make([]byte, 100)
			var err error
			for range reads {
				if _, err = resp.Body.Read(buf); err != nil {
					break
				}
			}
			if err := resp.Body.Close(); err != nil || source.closed != 1 {
				t.Errorf("%s: closed %d times, %v", c.name, source.closed, err)
			}
			if _, err := resp.Body.Read(buf); c.header != "" && !errors.Is(err, http.ErrBodyReadAfterClose) && reads < 1<<20 {
				for err == nil {
					_, err = resp.Body.Read(buf) // what had been decoded before
				}
				if !errors.Is(err, http.ErrBodyReadAfterClose) {
					t.Errorf("%s: read after close: %v", c.name, err)
				}
			}
		}
	}
	settled(t, before)
}

// TestCloseWhileReading is that a read ends that waits when the body is closed.
func TestCloseWhileReading(t *testing.T) {
	before := runtime.NumGoroutine()
	for _, c := range codings() {
		source := newTalk()
		resp := encoded(c, source)
		if err := rewrite.Response(resp, at("/x")); err != nil {
			t.Fatal(err)
		}
		done := make(chan error)
		go func() {
			_, err := io.Copy(io.Discard, resp.Body)
			done <- err
		}()
		source.pieces <- c.pack(t, []byte("<p>"))[:1] // now it waits for more
		if err := resp.Body.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err == nil {
			t.Errorf("%s: a body that was closed seemed to be complete", c.name)
		}
	}
	settled(t, before)
}

// settled waits until there are no more goroutines than before.
func settled(t *testing.T, before int) {
	for end := time.Now().Add(10 * time.Second); runtime.NumGoroutine() > before; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatalf("there are %d goroutines, and were %d", runtime.NumGoroutine(), before)
		}
	}
}
