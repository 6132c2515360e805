package echo_test

import (
	"compress/flate"
	"compress/gzip"
	"compress/zlib"
	"io"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/andybalholm/brotli"
	"github.com/google/go-cmp/cmp"
	"github.com/klauspost/compress/zstd"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"
)

func TestAnswer(t *testing.T) {
	s := start(t)
	base := "http://" + s.Addr("http").String() + "/answer"
	resp, body := get(t, client(), base+"?status=307&header=Location:/there&header=X-A:1&header=X-A:2&body=no&body=where")
	if resp.StatusCode != 307 || resp.Header.Get("Location") != "/there" || body != "nowhere" {
		t.Errorf("status %d, Location %q, body %q", resp.StatusCode, resp.Header.Get("Location"), body)
	}
	if diff := cmp.Diff([]string{"1", "2"}, resp.Header["X-A"]); diff != "" {
		t.Errorf("X-A (-want +got):\n%s", diff)
	}
	for _, bad := range []string{"?status=x", "?status=101", "?pause=x"} {
		if resp, _ := get(t, client(), base+bad); resp.StatusCode != 400 {
			t.Errorf("%s: status %d, want 400", bad, resp.StatusCode)
		}
	}
}

func TestAnswerPausesBetweenParts(t *testing.T) {
	s := start(t)
	begin := time.Now()
	resp, err := client().Get("http://" + s.Addr("http").String() + "/answer?body=first&body=second&pause=400ms")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b := make([]byte, len("first"))
	if _, err := io.ReadFull(resp.Body, b); err != nil || string(b) != "first" || time.Since(begin) > 300*time.Millisecond {
		t.Errorf("%q, %v after %s; want the first part at once", b, err, time.Since(begin))
	}
	if rest, err := io.ReadAll(resp.Body); err != nil || string(rest) != "second" || time.Since(begin) < 400*time.Millisecond {
		t.Errorf("%q, %v after %s; want the second part after the pause", rest, err, time.Since(begin))
	}
}

func TestPage(t *testing.T) {
	s := start(t)
	base := "http://" + s.Addr("http").String() + "/page"
	_, plain := get(t, client(), base)
	if !strings.Contains(plain, `href="/absolute?x=1&amp;y=2"`) {
		t.Fatalf("page %q", plain)
	}
	unpack := map[string]func(io.Reader) (io.Reader, error){
		"gzip":        func(r io.Reader) (io.Reader, error) { return gzip.NewReader(r) },
		"deflate":     func(r io.Reader) (io.Reader, error) { return zlib.NewReader(r) },
		"raw-deflate": func(r io.Reader) (io.Reader, error) { return flate.NewReader(r), nil },
		"br":          func(r io.Reader) (io.Reader, error) { return brotli.NewReader(r), nil },
		"zstd":        func(r io.Reader) (io.Reader, error) { return zstd.NewReader(r) },
	}
	for encoding, reader := range unpack {
		req, err := http.NewRequest(http.MethodGet, base+"?encoding="+encoding, nil)
		if err != nil {
			t.Fatal(err)
		}
		req.Header.Set("Accept-Encoding", "*") // the client must not unpack by itself
		resp, err := client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		defer resp.Body.Close()
		if got := resp.Header.Get("Content-Encoding"); got != strings.TrimPrefix(encoding, "raw-") {
			t.Errorf("%s: Content-Encoding %q", encoding, got)
		}
		in, err := reader(resp.Body)
		if err != nil {
			t.Fatalf("%s: %v", encoding, err)
		}
		if text, err := io.ReadAll(in); err != nil || string(text) != plain {
			t.Errorf("%s: %d bytes, %v; want %d", encoding, len(text), err, len(plain))
		}
	}
	if _, text := get(t, client(), base+"?n=100000"); len(text) != 100000 {
		t.Errorf("got %d bytes, want 100000", len(text))
	}
	for _, bad := range []string{"?encoding=rot13", "?n=x", "?n=999999999"} {
		if resp, _ := get(t, client(), base+bad); resp.StatusCode != 400 {
			t.Errorf("%s: status %d, want 400", bad, resp.StatusCode)
		}
	}
}

func TestPageInRanges(t *testing.T) {
	s := start(t)
	for header, status := range map[string]int{"Range: bytes=0-9": 206, `If-None-Match: "page"`: 304} {
		req, err := http.NewRequest(http.MethodGet, "http://"+s.Addr("http").String()+"/page", nil)
		if err != nil {
			t.Fatal(err)
		}
		name, value, _ := strings.Cut(header, ": ")
		req.Header.Set(name, value)
		resp, err := client().Do(req)
		if err != nil {
			t.Fatal(err)
		}
		resp.Body.Close()
		if resp.StatusCode != status {
			t.Errorf("%s: status %d, want %d", header, resp.StatusCode, status)
		}
	}
}

func TestGRPC(t *testing.T) {
	s := start(t)
	c, err := grpc.NewClient(s.Addr("h2c").String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	got, err := grpc_health_v1.NewHealthClient(c).Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if err != nil || got.GetStatus() != grpc_health_v1.HealthCheckResponse_SERVING {
		t.Errorf("%v, %v; want it to serve", got, err)
	}
}
