package relay

import (
	"bytes"
	"errors"
	"io"
	"testing"
	"testing/iotest"
)

// TestMove moves what comes in pieces of sizes around those of the buffers, and looks at how much was asked for at once.
func TestMove(t *testing.T) {
	broken := errors.New("broken")
	all := bytes.Repeat([]byte("0123456789abcdef"), 1<<14) // 256 KiB
	for _, size := range []int{1, quiet - 1, quiet, quiet + 1, busy - 1, busy, busy + 1, len(all)} {
		src := &pieces{all: all, size: size}
		var dst bytes.Buffer
		if err := move(struct{ io.Writer }{&dst}, src); err != nil || !bytes.Equal(dst.Bytes(), all) {
			t.Errorf("in pieces of %d: %d bytes, %v", size, dst.Len(), err)
		}
		if size < quiet && src.most != quiet || size >= busy && src.most != busy {
			t.Errorf("in pieces of %d: %d bytes were asked for at once", size, src.most)
		}
	}
	if err := move(struct{ io.Writer }{io.Discard}, iotest.ErrReader(broken)); err != broken {
		t.Errorf("got %v, want the reader's error", err)
	}
	if err := move(failing{broken}, &pieces{all: all, size: 1}); err != broken {
		t.Errorf("got %v, want the writer's error", err)
	}
}

// TestMoveCalms has a busy direction become quiet: its buffer is given back.
func TestMoveCalms(t *testing.T) {
	first := &pieces{all: make([]byte, 2*busy), size: busy}
	last := &pieces{all: make([]byte, quiet), size: 1}
	one := &pieces{all: make([]byte, 1), size: 1}
	if err := move(struct{ io.Writer }{io.Discard}, struct{ io.Reader }{io.MultiReader(first, one, last)}); err != nil {
		t.Fatal(err)
	}
	if first.most != busy || last.most != quiet {
		t.Errorf("asked for %d bytes while busy, and %d at last; want %d and %d", first.most, last.most, busy, quiet)
	}
}

// pieces is a reader that gives so many bytes at a time.
type pieces struct {
	all  []byte
	size int
	most int // how many were asked for at once
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.all) == 0 {
		return 0, io.EOF
	}
	p.most = max(p.most, len(b))
	n := copy(b, p.all[:min(p.size, len(p.all))])
	p.all = p.all[n:]
	return n, nil
}

type failing struct{ err error }

func (f failing) Write([]byte) (int, error) { return 0, f.err }
