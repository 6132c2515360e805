package nettest_test

import (
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"

	"varco.dev/internal/nettest"
)

// outcome is a test that only notes how it ended.
type outcome struct {
	testing.TB
	how string
}

func (o *outcome) Helper() {}

func (o *outcome) end(format string, args ...any) {
	o.how = fmt.Sprintf(format, args...)
	runtime.Goexit()
}

func (o *outcome) Skipf(format string, args ...any)  { o.end("skip: "+format, args...) }
func (o *outcome) Fatalf(format string, args ...any) { o.end("fatal: "+format, args...) }

func needBrowser() (path, how string) {
	o := &outcome{}
	done := make(chan struct{})
	go func() {
		defer close(done)
		path = nettest.NeedBrowser(o)
	}()
	<-done
	return path, o.how
}

func TestNeedBrowser(t *testing.T) {
	dir := t.TempDir()
	for _, name := range []string{"chromium-browser", "google-chrome", "mine"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte("#!/bin/true\n"), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, test := range []struct{ path, named, require, want, how string }{
		{path: dir, want: "chromium-browser"},
		{path: dir, require: "1", want: "chromium-browser"},
		{path: dir, named: "mine", want: "mine"},
		{path: "", named: filepath.Join(dir, "mine"), want: "mine"},
		{path: dir, named: "gone", how: "skip: "},
		{path: "", how: "skip: "},
		{path: "", require: "0", how: "skip: "},
		{path: "", require: "1", how: "fatal: "},
	} {
		t.Setenv("PATH", test.path)
		t.Setenv("VARCO_BROWSER", test.named)
		t.Setenv("VARCO_REQUIRE_BROWSER", test.require)
		path, how := needBrowser()
		if test.want != "" && path != filepath.Join(dir, test.want) || !strings.HasPrefix(how, test.how) || test.how == "" && how != "" {
			t.Errorf("%+v: got %q, %q", test, path, how)
		}
	}
}
