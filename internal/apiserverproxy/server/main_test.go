package server_test

import (
	"io"
	"os"
	"testing"

	"varco.dev/internal/observe"
)

func TestMain(m *testing.M) {
	observe.NewLog(io.Discard, "text", 0) // klog's words, of which upstream's filters have many
	os.Exit(m.Run())
}
