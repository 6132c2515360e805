package ui_test

import (
	"context"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/input"
	"github.com/chromedp/chromedp"

	"varco.dev/internal/nettest/browser"
)

// TestPage runs everything that needs a browser in one, because starting it takes seconds.
func TestPage(t *testing.T) {
	chromium := browser.New(t, "host-resolver-rules=MAP varco.test 127.0.0.1")
	for _, test := range []struct {
		name string
		run  func(*testing.T, context.Context)
	}{
		{"shows what the cluster has", testTable},
		{"follows changes", testLive},
		{"recovers", testRecovery},
		{"rests and goes on", testRest},
		{"asks for a namespace", testRefused},
		{"shows Services without endpoints", testNoSlices},
		{"opens links by keyboard", testKeyboard},
		{"keeps the search in the URL", testLocation},
		{"makes links", testLinks},
		{"has no links by other names", testOtherName},
		{"changes context", testContexts},
		{"remembers the theme", testTheme},
		{"shows hostile names as text", testHostile},
		{"bounds what it shows", testMany},
		{"is accessible", testAccessible},
		{"has contrast", testContrast},
		{"screenshots", screenshots},
	} {
		t.Run(test.name, func(t *testing.T) { test.run(t, chromium) })
	}
}

// open opens the page in a tab of its own. Whatever the page complains about, but for what is allowed, fails the test.
func open(t *testing.T, chromium context.Context, address string, allowed ...string) context.Context {
	t.Helper()
	tab := browser.Tab(t, chromium)
	browser.Watch(t, tab, allowed...)
	do(t, tab, chromedp.EmulateViewport(1280, 900), chromedp.Navigate(address))
	return tab
}

func do(t *testing.T, tab context.Context, steps ...chromedp.Action[chromedp.Void]) {
	t.Helper()
	if err := chromedp.Do(tab, steps...); err != nil {
		t.Fatal(err)
	}
}

// eval returns the value of a JavaScript expression, or what its promise brings.
func eval[T any](t *testing.T, tab context.Context, expression string) T {
	t.Helper()
	v, err := chromedp.Run(tab, chromedp.Evaluate[T](expression, chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("evaluating %s: %v", expression, err)
	}
	return v
}

// press presses keys of the keyboard one after another; see KeyboardEvent.key for their names. A key that the page has
// taken types nothing, as at a real keyboard.
func press(t *testing.T, tab context.Context, keys ...string) {
	t.Helper()
	codes := map[string]int64{"Enter": 13, "Escape": 27, "Tab": 9, "ArrowUp": 38, "ArrowDown": 40}
	for _, key := range keys {
		text := key
		if codes[key] != 0 {
			text = ""
		}
		if key == "Enter" {
			text = "\r"
		}
		down := input.DispatchKeyEventParams{
			Type: input.DispatchKeyEventTypeKeyDown, Key: key, Text: text, WindowsVirtualKeyCode: codes[key],
		}
		up := input.DispatchKeyEventParams{
			Type: input.DispatchKeyEventTypeKeyUp, Key: key, WindowsVirtualKeyCode: codes[key],
		}
		for _, params := range []input.DispatchKeyEventParams{down, up} {
			do(t, tab, chromedp.Func(func(ctx context.Context, target *chromedp.Target) error {
				_, err := cdp.Call(ctx, target, input.DispatchKeyEvent, params)
				return err
			}))
		}
	}
}

// rows are the texts of the table's cells as a user reads them, a line for each row.
const rows = `[...document.querySelectorAll("tr[data-key]")].map(row => [...row.cells].map(c => c.innerText.trim()
	.replaceAll(/\s+/g, " ")).join(" | "))`

// row is the row of a port, such as row("shop/web:http/TCP").
func row(key string) string { return `document.querySelector('tr[data-key="` + key + `"]')` }

// focused is the key of the row that has the focus.
const focused = `document.activeElement.closest("tr[data-key]")?.dataset.key ?? document.activeElement.id`
