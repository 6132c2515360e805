package node_test

import (
	"os"
	"path/filepath"
	"testing"

	"varco.dev/internal/nettest"
)

func TestNamespaceFileOfAnotherNodeStays(t *testing.T) {
	w := newWorld(t)
	w.create(w.pod("web", "serve"))
	w.await("web", "ready", isReady)
	path := filepath.Join(w.dir, "netns", "default_web")
	other, err := nettest.NewNamespace("other")
	if err != nil {
		t.Fatal(err)
	}
	defer other.Close()
	// As another node does for the next pod of the name.
	if err := nettest.Unbind(path); err != nil {
		t.Fatal(err)
	}
	if err := other.Bind(path); err != nil {
		t.Fatal(err)
	}
	defer nettest.Unbind(path)
	before, err := os.Stat(path)
	if err != nil {
		t.Fatal(err)
	}
	w.delete("web", 1)
	w.await("web", "gone", isGone)
	after, err := os.Stat(path)
	if err != nil || !os.SameFile(before, after) {
		t.Errorf("the other node's file is gone or another: %v", err)
	}
}
