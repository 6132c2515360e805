package report

import "time"

// MiB returns bytes in MiB.
func MiB(bytes int64) float64 { return float64(bytes) / (1 << 20) }

// Millis returns a time in ms.
func Millis(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// Micros returns a time in µs.
func Micros(d time.Duration) float64 { return float64(d) / float64(time.Microsecond) }

// AllMillis returns times in ms.
func AllMillis(ds []time.Duration) []float64 {
	out := make([]float64, len(ds))
	for i, d := range ds {
		out[i] = Millis(d)
	}
	return out
}
