package cluster

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBoundedLogKeepsTheLastOfIt(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	const limit, line = 100, 10
	for start := range 2 { // a second start goes on where the first ended
		l, err := openLog(path, limit)
		if err != nil {
			t.Fatal(err)
		}
		for i := range 20 {
			if n, err := fmt.Fprintf(l, "line %d %02d\n", start, i); n != line || err != nil {
				t.Fatalf("write: %d, %v", n, err)
			}
		}
		l.Close()
	}
	for name, want := range map[string]string{path: "line 1 19\n", path + ".1": "line 1 09\n"} {
		b, err := os.ReadFile(name)
		if err != nil || len(b) != limit || !strings.HasSuffix(string(b), want) {
			t.Errorf("%s: %v, %d bytes, want %d and the last %q:\n%s", name, err, len(b), limit, want, b)
		}
	}
}

// A log that cannot be put aside loses words, not its bound, and never fails.
func TestBoundedLogThatCannotBePutAside(t *testing.T) {
	path := filepath.Join(t.TempDir(), "x.log")
	if err := os.MkdirAll(filepath.Join(path+".1", "in the way"), 0o755); err != nil {
		t.Fatal(err)
	}
	l, err := openLog(path, 100)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for range 20 {
		if n, err := l.Write([]byte("some line\n")); n != 10 || err != nil {
			t.Fatalf("write: %d, %v", n, err)
		}
	}
	if info, err := os.Stat(path); err != nil || info.Size() != 100 {
		t.Errorf("log: %v, %v, want 100 bytes", info, err)
	}
}

func TestWriteLogs(t *testing.T) {
	dir := t.TempDir()
	for path, content := range map[string]string{
		"log/etcd.log":           strings.Repeat("early\n", 20_000) + "last word of etcd\n",
		"log/empty.log":          "",
		"nodes/node-1/log/a.log": "last word of a pod\n",
	} {
		path = filepath.Join(dir, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	var b bytes.Buffer
	WriteLogs(&b, dir)
	for _, want := range []string{"last word of etcd", "last word of a pod", filepath.Join(dir, "log/etcd.log")} {
		if !strings.Contains(b.String(), want) {
			t.Errorf("no %q in:\n%s", want, b.String())
		}
	}
	if n := strings.Count(b.String(), "\n"); n > 2*(shownLines+1) || strings.Contains(b.String(), "empty.log") {
		t.Errorf("%d lines:\n%s", n, b.String())
	}
}
