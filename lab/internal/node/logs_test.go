package node_test

import (
	"context"
	"net/http"
	"net/http/httptest"
	"net/url"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"varco.dev/lab/internal/node"
)

func TestLogWriter(t *testing.T) {
	path := filepath.Join(t.TempDir(), "log", "x.log")
	w, err := node.NewLog(path)
	if err != nil {
		t.Fatal(err)
	}
	for _, part := range []string{"one\ntw", "o\n", "\n", "no end"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatalf("wrote %d of %d: %v", n, len(part), err)
		}
	}
	w.Close()
	b, _ := os.ReadFile(path)
	want := regexp.MustCompile(`^\S+Z one\n\S+Z two\n\S+Z \n\S+Z no end\n$`)
	if !want.Match(b) {
		t.Errorf("log is %q, want %s", b, want)
	}
	if w, err = node.NewLog(path); err != nil {
		t.Fatal(err)
	}
	defer w.Close()
	if before, _ := os.ReadFile(path + ".previous"); string(before) != string(b) {
		t.Errorf("log of the run before is %q", before)
	}
	line := strings.Repeat("x", 1<<20) + "\n"
	for range 3 * node.MaxLogSize / len(line) {
		w.Write([]byte(line))
	}
	files, _ := filepath.Glob(path + "*")
	var size int64
	for _, f := range files {
		info, _ := os.Stat(f)
		size += info.Size()
	}
	if size > 2*node.MaxLogSize+4<<20 {
		t.Errorf("%d bytes in %v, want about twice %d at most", size, files, node.MaxLogSize)
	}
}

func TestReadLog(t *testing.T) {
	const old, log = "2026-01-01T00:00:00Z a\n", "2026-01-01T00:00:10Z b\n2026-01-01T00:00:20Z c d\n"
	tests := []struct{ name, query, want string }{
		{"all", "", "a\nb\nc d\n"},
		{"tail", "tailLines=2", "b\nc d\n"},
		{"tail of none", "tailLines=0", ""},
		{"times", "timestamps=true&tailLines=1", "2026-01-01T00:00:20Z c d\n"},
		{"since time", "sinceTime=2026-01-01T00:00:10Z", "b\nc d\n"},
		{"since seconds", "sinceSeconds=5", "c d\n"},
		{"limit", "limitBytes=3", "a\nb"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "x.log")
			os.WriteFile(path+".1", []byte(old), 0o644)
			os.WriteFile(path, []byte(log), 0o644)
			q, _ := url.ParseQuery(tt.query)
			o, err := node.ParseLogOptions(q, time.Date(2026, 1, 1, 0, 0, 25, 0, time.UTC))
			if err != nil {
				t.Fatal(err)
			}
			rec := httptest.NewRecorder()
			node.CopyLog(rec, o, path)
			if got := rec.Body.String(); got != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
		})
	}
	for _, bad := range []string{"follow=x", "tailLines=x", "sinceTime=x", "sinceSeconds=x"} {
		q, _ := url.ParseQuery(bad)
		if _, err := node.ParseLogOptions(q, time.Now()); err == nil {
			t.Errorf("query %s: no error", bad)
		}
	}
}

func TestFollowLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	w, err := node.NewLog(path)
	if err != nil {
		t.Fatal(err)
	}
	w.Write([]byte("one\n"))
	ended := make(chan struct{})
	s := httptest.NewServer(http.HandlerFunc(func(rw http.ResponseWriter, r *http.Request) {
		node.FollowLog(r.Context(), rw, path, func() bool {
			select {
			case <-ended:
				return false
			default:
				return true
			}
		})
	}))
	defer s.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	req, _ := http.NewRequestWithContext(ctx, http.MethodGet, s.URL, nil)
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	read := func(want string) {
		t.Helper()
		b := make([]byte, len(want))
		for n := 0; n < len(want); {
			m, err := resp.Body.Read(b[n:])
			if n += m; err != nil && n < len(want) {
				t.Fatalf("read %q, want %q: %v", b[:n], want, err)
			}
		}
		if string(b) != want {
			t.Fatalf("read %q, want %q", b, want)
		}
	}
	read("one\n")
	w.Write([]byte("two\n"))
	read("two\n")
	w.Close()
	if w, err = node.NewLog(path); err != nil { // the container is restarted
		t.Fatal(err)
	}
	w.Write([]byte("three\n"))
	read("three\n")
	w.Close()
	close(ended)
	if n, err := resp.Body.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("read %d bytes, %v after the end", n, err)
	}
}
