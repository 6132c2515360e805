package balance

import "testing"

type fixed int64

func (f fixed) Written() int64 { return int64(f) }

// TestMoved wants the alert that ends a TLS connection not to be taken for a part of a request.
func TestMoved(t *testing.T) {
	tests := []struct {
		written int64
		tls     bool
		want    bool
	}{
		{0, false, false}, {1, false, true}, {0, true, false}, {24, true, false}, {31, true, false}, {32, true, true}, {47, true, true},
	}
	for _, test := range tests {
		c := counted{by: fixed(100 + test.written), before: 100, tls: test.tls}
		if got := c.moved(); got != test.want {
			t.Errorf("%d bytes, TLS %v: got %v", test.written, test.tls, got)
		}
	}
	if !(counted{}).moved() {
		t.Error("a connection that does not count is said to have sent nothing")
	}
}
