package nettest

import (
	"os"
	"os/exec"
	"testing"
)

// browsers are the names of Chromium and of what behaves like it, in the order of preference.
var browsers = []string{"chromium", "chromium-browser", "google-chrome"}

// NeedBrowser returns the path of a Chromium: the one that VARCO_BROWSER names, or the first in PATH. Without one it
// skips the test. With VARCO_REQUIRE_BROWSER set to 1 it fails the test instead: whoever sets it means to run every test.
func NeedBrowser(t testing.TB) string {
	t.Helper()
	names := browsers
	if named := os.Getenv("VARCO_BROWSER"); named != "" {
		names = []string{named}
	}
	for _, name := range names {
		if path, err := exec.LookPath(name); err == nil {
			return path
		}
	}
	const reason = "needs a browser: none of %q is in PATH, and VARCO_BROWSER may name another"
	if os.Getenv("VARCO_REQUIRE_BROWSER") == "1" {
		t.Fatalf(reason, names)
	}
	t.Skipf(reason, names)
	return ""
}
