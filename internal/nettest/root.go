package nettest

import (
	"os"
	"testing"
)

// NeedRoot skips the test where namespaces cannot be made. With VARCO_REQUIRE_ROOT set to 1 it fails the test instead:
// whoever sets it means to run every test.
func NeedRoot(t testing.TB) {
	t.Helper()
	if os.Geteuid() == 0 {
		return
	}
	const reason = "needs root: makes network namespaces"
	if os.Getenv("VARCO_REQUIRE_ROOT") == "1" {
		t.Fatal(reason)
	}
	t.Skip(reason)
}
