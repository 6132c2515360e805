package browser_test

import (
	"fmt"
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"varco.dev/internal/nettest/browser"
)

// notes is a test that keeps what would fail it.
type notes struct {
	testing.TB
	mu    sync.Mutex
	notes []string
}

func (n *notes) Errorf(format string, args ...any) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.notes = append(n.notes, fmt.Sprintf(format, args...))
}

// TestWatch shows that no kind of complaint gets lost: every browser test relies on it.
func TestWatch(t *testing.T) {
	server := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Security-Policy", "default-src 'self'; style-src 'none'")
		switch r.URL.Path {
		case "/":
			w.Header().Set("Content-Type", "text/html")
			_, _ = w.Write([]byte(`<!doctype html><p style="color: red">x</p><script src=/script.js></script>`))
		case "/script.js":
			w.Header().Set("Content-Type", "text/javascript")
			_, _ = w.Write([]byte(`console.error("said aloud"); console.log("of no matter"); fetch("/gone"); setTimeout(() => { throw new Error("thrown") })
				setTimeout(() => { document.title = "done" }, 1)`))
		default:
			http.NotFound(w, r)
		}
	}))
	defer server.Close()

	tab := browser.Tab(t, browser.New(t))
	got := &notes{TB: t}
	browser.Watch(got, tab, "of no matter")
	if err := chromedp.Do(tab, chromedp.Navigate(server.URL)); err != nil {
		t.Fatal(err)
	}
	browser.Until(t, tab, `document.title === "done" && performance.getEntriesByName("`+server.URL+`/gone").length > 0`)
	got.mu.Lock()
	defer got.mu.Unlock()
	for _, want := range []string{"said aloud", "Error: thrown", "Content Security Policy", "404"} {
		if !slices.ContainsFunc(got.notes, func(n string) bool { return strings.Contains(n, want) }) {
			t.Errorf("no complaint about %q in %q", want, got.notes)
		}
	}
	if slices.ContainsFunc(got.notes, func(n string) bool { return strings.Contains(n, "of no matter") }) {
		t.Errorf("an allowed complaint in %q", got.notes)
	}
}
