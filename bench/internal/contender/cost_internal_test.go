package contender

import (
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const line = "42 (kube (x) proxy) S 1 42 42 0 -1 4194560 100 200 0 0 7 8 11 31 20 0 9 0 100 0 0"
	got, err := parseStat(line)
	if want := 420 * time.Millisecond; err != nil || got != want {
		t.Errorf("got %v, %v, want %v: cutime and cstime in hundredths of a second", got, err, want)
	}
	for _, bad := range []string{"", "42 (x) S 1 2", "42 (x) S 1 42 42 0 -1 4194560 100 200 0 0 7 8 eleven 31 20"} {
		if got, err := parseStat(bad); err == nil {
			t.Errorf("%q: read as %v", bad, got)
		}
	}
}

func TestParseStatus(t *testing.T) {
	const status = "Name:\tvarco\nVmHWM:\t    2048 kB\nVmRSS:\t    1024 kB\nThreads:\t9\n"
	for key, want := range map[string]int64{"VmHWM": 2 << 20, "VmRSS": 1 << 20} {
		if got, err := parseStatus(status, key); err != nil || got != want {
			t.Errorf("%s: got %d, %v, want %d", key, got, err, want)
		}
	}
	if got, err := parseStatus(status, "Threads"); err == nil {
		t.Errorf("a value without unit: read as %d", got)
	}
}
