package observe_test

import (
	"testing"

	"varco.dev/internal/observe"
)

func TestSize(t *testing.T) {
	for bytes, want := range map[uint64]string{
		0: "0", 999: "999", 1000: "0.977Ki", 1024: "1Ki", 12_900_000: "12.3Mi", 999 << 20: "999Mi", 1023 << 20: "0.999Gi", 1 << 40: "1Ti", 1<<64 - 1: "16Ei",
	} {
		if got := observe.Size(bytes); got != want {
			t.Errorf("%d bytes: %q, want %q", bytes, got, want)
		}
	}
}
