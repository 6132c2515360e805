package fakeapi_test

import (
	"crypto/tls"
	"crypto/x509"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"varco.dev/bench/internal/fakeapi"
	"varco.dev/bench/internal/load"
)

// start runs a server, and returns its URL and a client that speaks HTTP/2 to it.
func start(t *testing.T) (url string, client *http.Client) {
	t.Helper()
	s := &fakeapi.Server{Dir: t.TempDir(), EventsPerSecond: 50, Log: slog.New(slog.DiscardHandler)}
	done := make(chan error)
	go func() { done <- s.Run(t.Context()) }()
	t.Cleanup(func() { // the context of a test ends before its cleanups
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	for deadline := time.Now().Add(20 * time.Second); ; {
		if b, err := os.ReadFile(filepath.Join(s.Dir, fakeapi.AddressFile)); err == nil {
			url = "https://" + string(b)
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the server does not listen")
		}
		time.Sleep(time.Millisecond) // for the server to listen
	}
	ca, err := os.ReadFile(filepath.Join(s.Dir, fakeapi.CAFile))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	client = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	t.Cleanup(client.CloseIdleConnections)
	return url, client
}

func TestAnswers(t *testing.T) {
	url, client := start(t)
	get := func(path string) (*http.Response, string) {
		t.Helper()
		res, err := client.Get(url + path)
		if err != nil {
			t.Fatal(err)
		}
		defer res.Body.Close()
		b, err := io.ReadAll(res.Body)
		if err != nil {
			t.Fatal(err)
		}
		return res, string(b)
	}
	if res, text := get(fakeapi.SmallPath); res.ProtoMajor != 2 || !strings.Contains(text, `"kind":"Status"`) {
		t.Errorf("got %q by %s, want a Status by HTTP/2", text, res.Proto)
	}
	const size = 1<<20 + 1
	if res, text := get(fakeapi.BodyPath(size, false)); res.ContentLength != size || len(text) != size {
		t.Errorf("got %d bytes and was told of %d, want %d", len(text), res.ContentLength, size)
	}
	if res, text := get(fakeapi.BodyPath(size, true)); res.ContentLength != -1 || len(text) != size {
		t.Errorf("chunked: got %d bytes and was told of %d, want %d and nothing", len(text), res.ContentLength, size)
	}
	res, err := client.Post(url+fakeapi.UploadPath, "application/json", strings.NewReader("hello"))
	if err != nil {
		t.Fatal(err)
	}
	defer res.Body.Close()
	if b, err := io.ReadAll(res.Body); err != nil || !strings.Contains(string(b), fakeapi.Message(5)) {
		t.Errorf("upload: got %q, %v, want %q", b, err, fakeapi.Message(5))
	}
}

func TestEvents(t *testing.T) {
	url, client := start(t)
	for _, together := range []bool{false, true} {
		const count, during = 4, 200 * time.Millisecond
		w, err := load.OpenWatches(t.Context(), client, url+fakeapi.WatchPath(together), count)
		if err != nil {
			t.Fatal(err)
		}
		got, err := w.During(t.Context(), during)
		w.Close()
		// Each of them has one in 20 ms, so that there are 40 of a machine that does nothing else.
		if err != nil || len(got.Took) < count || len(got.Took) > 11*count || got.Seen < len(got.Took) {
			t.Errorf("together %v: got %d events of %d, %v, want some 40", together, len(got.Took), got.Seen, err)
		}
		for _, took := range got.Took {
			if took <= 0 || took > during+time.Second {
				t.Errorf("together %v: an event took %v", together, took)
			}
		}
	}
}

func TestEventTimeRefuses(t *testing.T) {
	for _, bad := range []string{"", "{}", `{"type":"BOOKMARK"}`} {
		if at, err := fakeapi.EventTime([]byte(bad)); err == nil {
			t.Errorf("%q: read as %v", bad, at)
		}
	}
}
