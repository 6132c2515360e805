package load_test

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"varco.dev/bench/internal/fakeapi"
	"varco.dev/bench/internal/load"
)

func serve(t *testing.T, h http.HandlerFunc) netip.AddrPort {
	t.Helper()
	s := httptest.NewServer(h)
	t.Cleanup(s.Close)
	return netip.MustParseAddrPort(strings.TrimPrefix(s.URL, "http://"))
}

func TestGetterCountsAnswers(t *testing.T) {
	var asked atomic.Int64
	to := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/small" {
			http.NotFound(w, r)
		}
		if asked.Add(1)%2 == 0 { // this one is chunked
			w.(http.Flusher).Flush()
		}
		fmt.Fprint(w, "hello")
	})
	g, err := load.NewGetter(load.Request{To: to, Path: "/small"}, 3)
	if err != nil {
		t.Fatal(err)
	}
	defer g.Close()
	total := 0
	for range 2 {
		got, err := g.Run(t.Context(), 50*time.Millisecond)
		if err != nil || len(got.Latencies) == 0 || got.Took < 50*time.Millisecond {
			t.Fatalf("got %d answers in %v, %v", len(got.Latencies), got.Took, err)
		}
		for _, l := range got.Latencies {
			if l <= 0 || l > got.Took+50*time.Millisecond {
				t.Errorf("an answer took %v", l)
			}
		}
		total += len(got.Latencies)
	}
	// Each connection may have a request under way.
	if n := int(asked.Load()); n < total || n > total+3 {
		t.Errorf("counted %d answers to %d requests", total, n)
	}
}

func TestGetterTellsOfBadAnswers(t *testing.T) {
	for name, h := range map[string]http.HandlerFunc{
		"another status":    http.NotFound,
		"a long answer":     func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, strings.Repeat("x", 1<<20)) },
		"an end before one": func(http.ResponseWriter, *http.Request) { panic(http.ErrAbortHandler) },
	} {
		g, err := load.NewGetter(load.Request{To: serve(t, h), Path: "/"}, 1)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := g.Run(t.Context(), 10*time.Second); err == nil {
			t.Errorf("%s: %d answers counted", name, len(got.Latencies))
		}
		g.Close()
	}
}

func TestBodiesMustBeWhole(t *testing.T) {
	const size = 3<<20 + 1
	to := serve(t, func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPost {
			n, _ := io.Copy(io.Discard, r.Body)
			fmt.Fprintf(w, `{"message":%q}`, fakeapi.Message(n))
			return
		}
		fmt.Fprint(w, strings.Repeat("x", size))
	})
	if took, err := load.Download(t.Context(), to, "/", size); err != nil || took <= 0 {
		t.Errorf("download: %v, %v", took, err)
	}
	if took, err := load.Download(t.Context(), to, "/", size+1); err == nil {
		t.Errorf("a short body was taken for whole, in %v", took)
	}
	if took, err := load.Upload(t.Context(), to, "/", size); err != nil || took <= 0 {
		t.Errorf("upload: %v, %v", took, err)
	}
	deaf := serve(t, func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, `{"message":"0 bytes"}`) })
	if took, err := load.Upload(t.Context(), deaf, "/", 1); err == nil {
		t.Errorf("an upload that did not come was taken for whole, in %v", took)
	}
}

func TestFirstAnswerWaits(t *testing.T) {
	var asked atomic.Int64
	to := serve(t, func(w http.ResponseWriter, _ *http.Request) {
		if asked.Add(1) < 4 {
			w.WriteHeader(http.StatusBadGateway)
		}
	})
	if err := load.FirstAnswer(t.Context(), to, "/", func() error { return nil }); err != nil || asked.Load() != 4 {
		t.Errorf("got %v after %d requests, want the fourth", err, asked.Load())
	}
	ended := errors.New("ended")
	nobody := netip.MustParseAddrPort("127.0.0.1:1")
	if err := load.FirstAnswer(t.Context(), nobody, "/", func() error { return ended }); !errors.Is(err, ended) {
		t.Errorf("got %v, want %v", err, ended)
	}
}

func TestWatchesTellOfAnEnd(t *testing.T) {
	to := serve(t, func(w http.ResponseWriter, _ *http.Request) { w.(http.Flusher).Flush() })
	w, err := load.OpenWatches(t.Context(), http.DefaultClient, "http://"+to.String(), 2)
	if err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if _, err := w.During(t.Context(), time.Millisecond); err == nil {
		t.Error("watches that have ended count")
	}
	refused := serve(t, http.NotFound)
	if _, err := load.OpenWatches(t.Context(), http.DefaultClient, "http://"+refused.String(), 2); err == nil {
		t.Error("watches that were refused are said to be open")
	}
}
