package cluster

import (
	"errors"
	"io"
	"net/http"
	"strings"
	"testing"
	"testing/synctest"
)

// closer counts how often it is closed.
type closer struct {
	io.Reader
	closed int
}

func (c *closer) Close() error { c.closed++; return nil }

// TestBodyReleased releases a body while it is sent for the second time: what was kept still arrives.
func TestBodyReleased(t *testing.T) {
	source := &closer{Reader: strings.NewReader("0123456789")}
	b := newBody(source, 10)
	first := b.send()
	if _, err := io.ReadFull(first, make([]byte, 6)); err != nil {
		t.Fatal(err)
	}
	first.Close()
	if !b.free(t.Context()) {
		t.Fatal("the body is not free")
	}
	if source.closed != 0 {
		t.Error("the source was closed while it is needed")
	}
	second := b.send()
	if _, err := io.ReadFull(second, make([]byte, 2)); err != nil {
		t.Fatal(err)
	}
	b.release()
	rest, err := io.ReadAll(second)
	if err != nil || string(rest) != "23456789" {
		t.Errorf("got %q, %v", rest, err)
	}
	second.Close()
	second.Close()
	if source.closed != 1 {
		t.Errorf("the source was closed %d times, want once", source.closed)
	}
}

// TestBodyEnds has the source fail: what came before may not pass for the whole.
func TestBodyEnds(t *testing.T) {
	broken := errors.New("the client is gone")
	b := newBody(&closer{Reader: io.MultiReader(strings.NewReader("part"), failure{broken})}, -1)
	s := b.send()
	if _, err := io.ReadAll(s); !errors.Is(err, broken) {
		t.Errorf("got %v", err)
	}
	s.Close()
	if b.free(t.Context()) {
		t.Error("a part of a body would be sent again")
	}
}

// TestBodyHeld has a transport that does not let go of the body, and one that does too late to wait for.
func TestBodyHeld(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		b := newBody(&closer{Reader: strings.NewReader("x")}, 1)
		s := b.send()
		if b.free(t.Context()) {
			t.Error("a body that is being read is free")
		}
		s.Close()
		if !b.free(t.Context()) {
			t.Error("a closed body is not free")
		}
		if _, err := s.Read(make([]byte, 1)); !errors.Is(err, http.ErrBodyReadAfterClose) {
			t.Errorf("reading after closing: %v", err)
		}
	})
}

// TestGetBody has a transport ask for the body anew, as it does when a connection was closed before its time.
func TestGetBody(t *testing.T) {
	b := newBody(&closer{Reader: strings.NewReader("0123456789")}, 10)
	r, err := http.NewRequestWithContext(t.Context(), http.MethodPost, "http://x", nil)
	if err != nil {
		t.Fatal(err)
	}
	out := b.request(r, r.Header)
	if _, err := io.ReadFull(out.Body, make([]byte, 3)); err != nil {
		t.Fatal(err)
	}
	out.Body.Close()
	again, err := out.GetBody()
	if err != nil {
		t.Fatal(err)
	}
	if got, err := io.ReadAll(again); err != nil || string(got) != "0123456789" {
		t.Errorf("got %q, %v", got, err)
	}
	again.Close()
	b.release()
	if _, err := out.GetBody(); err == nil {
		t.Error("a released body can be had anew")
	}
}
