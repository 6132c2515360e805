package httpproxy_test

import (
	"compress/gzip"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"net/http/httptrace"
	"net/textproto"
	"strconv"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/httpproxy"
)

// client returns a client of the proxy's server that speaks HTTP/1.1, or HTTP/2 with or without TLS as the server does.
func (w *world) client(t testing.TB, h2 bool) *http.Client {
	tr := w.front.Client().Transport.(*http.Transport).Clone()
	tr.DisableCompression = true
	tr.TLSClientConfig = &tls.Config{InsecureSkipVerify: true}
	tr.Protocols = new(http.Protocols)
	tr.Protocols.SetHTTP1(!h2)
	tr.Protocols.SetHTTP2(h2)
	tr.Protocols.SetUnencryptedHTTP2(h2)
	t.Cleanup(tr.CloseIdleConnections)
	return &http.Client{Transport: tr, Timeout: within, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
}

// protocols are all pairs of what a client and a target speak.
var protocols = []struct {
	name                 string
	secure, front2, back bool
}{
	{"1 to 1", false, false, false},
	{"1 to 2", false, false, true},
	{"h2c to 1", false, true, false},
	{"h2c to 2", false, true, true},
	{"h2 to 1", true, true, false},
	{"h2 to 2", true, true, true},
}

// each runs a test for all protocols.
func each(t *testing.T, target http.HandlerFunc, test func(*testing.T, *world, *http.Client), options ...func(*world)) {
	for _, p := range protocols {
		t.Run(p.name, func(t *testing.T) {
			w := newWorld(t, func(rw http.ResponseWriter, r *http.Request) {
				if r.ProtoMajor == 2 != p.back {
					t.Errorf("the target is asked in %s", r.Proto)
				}
				target(rw, r)
			}, append(options, func(w *world) { w.secure, w.h2 = p.secure, p.back })...)
			test(t, w, w.client(t, p.front2))
		})
	}
}

// TestEventsAreNotHeldBack has a target that waits for each event to have arrived before it sends the next one.
func TestEventsAreNotHeldBack(t *testing.T) {
	next := make(chan struct{}, 1)
	each(t, func(w http.ResponseWriter, r *http.Request) {
		for i := range 5 {
			fmt.Fprintf(w, "event %d\n", i)
			w.(http.Flusher).Flush()
			<-next
		}
	}, func(t *testing.T, w *world, c *http.Client) {
		resp, err := c.Get(w.front.URL)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for i := range 5 {
			want(t, resp.Body, fmt.Sprintf("event %d\n", i))
			next <- struct{}{}
		}
		want(t, resp.Body, "")
	})
}

// TestBothDirectionsStream has a target that answers each word of the request before it hears the next one, and trailers
// both ways: a call of gRPC.
func TestBothDirectionsStream(t *testing.T) {
	each(t, func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		w.Header().Set("Trailer", "Announced")
		w.WriteHeader(200)
		w.(http.Flusher).Flush()
		buf := make([]byte, 100)
		for {
			n, err := r.Body.Read(buf)
			w.Write(buf[:n])
			w.(http.Flusher).Flush()
			if err != nil {
				break
			}
		}
		w.Header().Set("Announced", r.Trailer.Get("Asked"))
		w.Header().Set(http.TrailerPrefix+"Grpc-Status", "0")
	}, func(t *testing.T, w *world, c *http.Client) {
		body, words := io.Pipe()
		r, _ := http.NewRequest("POST", w.front.URL, body)
		r.Trailer = http.Header{"Asked": nil}
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		for _, word := range []string{"one", "two", "three"} {
			send(t, words, word)
			want(t, resp.Body, word)
		}
		r.Trailer.Set("Asked", "yes")
		words.Close()
		if rest, err := io.ReadAll(resp.Body); len(rest) > 0 || err != nil {
			t.Errorf("got %q and %v at the end", rest, err)
		}
		if diff := cmp.Diff(http.Header{"Announced": {"yes"}, "Grpc-Status": {"0"}}, resp.Trailer); diff != "" {
			t.Errorf("trailers: -want +got:\n%s", diff)
		}
	})
}

// TestCutAnswers has a target that breaks off. The client must not take what it has for all there was.
func TestCutAnswers(t *testing.T) {
	for _, length := range []int{-1, 100} {
		each(t, func(w http.ResponseWriter, _ *http.Request) {
			if length >= 0 {
				w.Header().Set("Content-Length", strconv.Itoa(length))
			}
			fmt.Fprint(w, "half")
			w.(http.Flusher).Flush()
			panic(http.ErrAbortHandler)
		}, func(t *testing.T, w *world, c *http.Client) {
			resp, err := c.Get(w.front.URL)
			if err != nil {
				t.Fatal(err)
			}
			defer resp.Body.Close()
			if got, err := io.ReadAll(resp.Body); string(got) != "half" || err == nil {
				t.Errorf("of %d bytes: got %q and %v, want half of it and an error", length, got, err)
			}
			if err := <-w.cut; !errors.Is(err, http.ErrAbortHandler) {
				t.Errorf("Serve ended with %v", err)
			}
		})
	}
}

// TestClientLeaves wants the target to know.
func TestClientLeaves(t *testing.T) {
	left := make(chan struct{})
	each(t, func(w http.ResponseWriter, r *http.Request) {
		w.(http.Flusher).Flush()
		<-r.Context().Done()
		left <- struct{}{}
	}, func(t *testing.T, w *world, c *http.Client) {
		resp, err := c.Get(w.front.URL)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		<-left
	})
}

// TestInformational wants 103 to come at once, and what it says to be no part of the answer.
func TestInformational(t *testing.T) {
	next := make(chan struct{})
	each(t, func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Link", "a")
		w.WriteHeader(103)
		<-next
		w.Header().Del("Link")
		w.WriteHeader(200)
	}, func(t *testing.T, w *world, c *http.Client) {
		early := ""
		r, _ := http.NewRequest("GET", w.front.URL, nil)
		r = r.WithContext(httptrace.WithClientTrace(t.Context(), &httptrace.ClientTrace{
			Got1xxResponse: func(code int, h textproto.MIMEHeader) error {
				early = fmt.Sprint(code, h)
				next <- struct{}{}
				return nil
			},
		}))
		resp, err := c.Do(r)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if early != "103 map[Link:[a]]" || resp.Header.Get("Link") != "" || resp.Header.Get("Warning") != "ours" {
			t.Errorf("got %s, and then %v", early, resp.Header)
		}
	}, func(w *world) { w.before = func(rw http.ResponseWriter) { rw.Header().Set("Warning", "ours") } })
}

// TestDecompress wants answers that nobody asked to be packed to come unpacked, event by event.
func TestDecompress(t *testing.T) {
	next := make(chan struct{}, 1)
	asked := make(chan string, 1)
	target := func(w http.ResponseWriter, r *http.Request) {
		asked <- strings.Join(r.Header["Accept-Encoding"], "|")
		switch r.URL.Path {
		case "/plain":
			fmt.Fprint(w, "plain")
		case "/broken":
			w.Header().Set("Content-Encoding", "gzip")
			fmt.Fprint(w, "this is not gzip")
		default:
			w.Header().Set("Content-Encoding", "gzip")
			w.Header().Set("Etag", `"a"`)
			z := gzip.NewWriter(w)
			for _, word := range []string{"one", "two"} {
				fmt.Fprint(z, word)
				z.Flush()
				w.(http.Flusher).Flush()
				<-next
			}
			z.Close()
		}
	}
	for _, c := range []struct {
		path, header, asked, encoding string
	}{
		{"/", "", "gzip", ""},
		{"/", "Accept-Encoding: gzip", "gzip", "gzip"},
		{"/", "Accept-Encoding: ", "", "gzip"},
		{"/plain", "Range: bytes=0-5", "", ""},
		{"/plain", "", "gzip", ""},
		{"/broken", "", "gzip", ""},
	} {
		t.Run(c.path+c.header, func(t *testing.T) {
			w := newWorld(t, target, func(w *world) { w.to.Decompress = true })
			conn, r := w.dial(t)
			if c.header != "" {
				c.header += "\r\n"
			}
			send(t, conn, "GET "+c.path+" HTTP/1.1\r\nHost: a\r\n"+c.header+"\r\n")
			resp := answerTo(t, r, "GET")
			if got := <-asked; got != c.asked || resp.Header.Get("Content-Encoding") != c.encoding {
				t.Errorf("asked for %q, got %v", got, resp.Header)
			}
			var body io.Reader = resp.Body
			switch {
			case c.path == "/plain":
				want(t, body, "plain")
				return
			case c.path == "/broken":
				if got, err := io.ReadAll(body); len(got) > 0 || err == nil {
					t.Errorf("got %q and %v", got, err)
				}
				return
			case c.encoding == "gzip":
				body, _ = gzip.NewReader(body)
			}
			for _, word := range []string{"one", "two"} {
				want(t, body, word)
				next <- struct{}{}
			}
			if rest, err := io.ReadAll(body); len(rest) > 0 || err != nil || resp.Header.Get("Etag") != `"a"` {
				t.Errorf("got %q, %v and %v at the end", rest, err, resp.Header)
			}
		})
	}
}

// TestBulk wants a large answer to arrive whole, whoever speaks what.
func TestBulk(t *testing.T) {
	const size = 5<<20 + 12345
	each(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/known" {
			w.Header().Set("Content-Length", strconv.Itoa(size))
		}
		io.CopyN(w, numbers{}, size)
	}, func(t *testing.T, w *world, c *http.Client) {
		for _, path := range []string{"/known", "/unknown"} {
			resp, err := c.Get(w.front.URL + path)
			if err != nil {
				t.Fatal(err)
			}
			got, err := io.ReadAll(resp.Body)
			resp.Body.Close()
			if len(got) != size || err != nil {
				t.Errorf("got %d bytes and %v", len(got), err)
			}
		}
	})
}

// numbers are bytes without an end.
type numbers struct{}

func (numbers) Read(p []byte) (int, error) {
	for i := range p {
		p[i] = byte(i)
	}
	return len(p), nil
}

// TestNothingAtHandIsHeldBack has a target send a large part of an answer and wait for all of it to have arrived: what is
// gathered must not wait for more.
func TestNothingAtHandIsHeldBack(t *testing.T) {
	for _, part := range []int{1, 8 << 10, 16 << 10, 17 << 10, 64 << 10, 100<<10 + 1, 1 << 20} {
		for _, length := range []bool{true, false} {
			next := make(chan struct{}, 1)
			w := newWorld(t, func(w http.ResponseWriter, r *http.Request) {
				if length {
					w.Header().Set("Content-Length", strconv.Itoa(3*part))
				}
				for range 3 {
					io.CopyN(w, numbers{}, int64(part))
					w.(http.Flusher).Flush()
					<-next
				}
			})
			resp, err := w.client(t, false).Get(w.front.URL)
			if err != nil {
				t.Fatal(err)
			}
			for range 3 {
				if n, err := io.CopyN(io.Discard, resp.Body, int64(part)); err != nil {
					t.Fatalf("parts of %d: got %d and %v", part, n, err)
				}
				next <- struct{}{}
			}
			resp.Body.Close()
		}
	}
}

// firstWriteWaits is a ResponseWriter whose first write waits, and that remembers the largest.
type firstWriteWaits struct {
	http.ResponseWriter
	until   chan struct{}
	largest *int
}

func (f *firstWriteWaits) Unwrap() http.ResponseWriter { return f.ResponseWriter }

func (f *firstWriteWaits) Write(p []byte) (int, error) {
	<-f.until
	*f.largest = max(*f.largest, len(p))
	return f.ResponseWriter.Write(p)
}

// TestGathering wants what has piled up meanwhile to go in few writes, not in one for each TLS record.
func TestGathering(t *testing.T) {
	written, largest := make(chan struct{}), 0
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", strconv.Itoa(1<<20))
		io.CopyN(rw, numbers{}, 512<<10) // which buffers of sockets hold
		close(written)
		io.CopyN(rw, numbers{}, 512<<10)
	})
	front := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		w.proxy.Serve(&firstWriteWaits{rw, written, &largest}, r, w.to)
	}))
	defer front.Close()
	resp, err := http.Get(front.URL)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if n, err := io.Copy(io.Discard, resp.Body); n != 1<<20 || err != nil {
		t.Fatalf("got %d bytes and %v", n, err)
	}
	front.Close()
	if largest < 32<<10 {
		t.Errorf("the largest write has %d bytes", largest)
	}
}

// gate is a connection that brings so many bytes, and more when it is opened.
type gate struct {
	net.Conn
	left int
	open chan struct{}
}

func (g *gate) Read(p []byte) (int, error) {
	if g.left == 0 {
		<-g.open
		return g.Conn.Read(p)
	}
	n, err := g.Conn.Read(p[:min(len(p), g.left)])
	g.left -= n
	return n, err
}

// TestPartOfARecord stops the target's bytes in the middle of a TLS record. All whole records must reach the client.
func TestPartOfARecord(t *testing.T) {
	const size = 1 << 20
	w := newWorld(t, func(rw http.ResponseWriter, _ *http.Request) {
		rw.Header().Set("Content-Length", strconv.Itoa(size))
		io.CopyN(rw, numbers{}, size)
	})
	for at := 100 << 10; at < 180<<10; at += 9001 {
		open := make(chan struct{})
		tr := transport(t, false)
		tr.DialContext = httpproxy.BufferDial(func(_ context.Context, network, addr string) (net.Conn, error) {
			c, err := net.Dial(network, addr)
			return &gate{c, at, open}, err
		})
		w.to.RoundTripper = tr
		resp, err := w.client(t, false).Get(w.front.URL)
		if err != nil {
			t.Fatal(err)
		}
		const around = 20 << 10 // what is no whole record, and what is no answer
		if n, err := io.CopyN(io.Discard, resp.Body, int64(at-around)); err != nil {
			t.Fatalf("stopped at %d: got %d and %v", at, n, err)
		}
		close(open)
		if n, err := io.Copy(io.Discard, resp.Body); err != nil || n != int64(size-at+around) {
			t.Errorf("got %d and %v afterwards", n, err)
		}
		resp.Body.Close()
	}
}
