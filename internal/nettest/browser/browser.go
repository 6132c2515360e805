// Package browser starts a headless Chromium for tests, through chromedp, and reports what its pages complain about.
package browser

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"varco.dev/internal/nettest"
)

const (
	// startTimeout bounds the start of the browser, which takes a second where nothing else runs.
	startTimeout = time.Minute
	// tabTimeout bounds what one test does in one tab.
	tabTimeout = 2 * time.Minute
)

// New starts a browser with an empty profile and returns a context that chromedp runs in. Flags are Chromium's without
// their dashes: "host-resolver-rules=MAP * 127.0.0.1" or "incognito". The browser ends with the test. Starting one
// takes seconds: a test binary starts one and opens tabs.
//
// The test is skipped where there is no browser; see nettest.NeedBrowser.
func New(t testing.TB, flags ...string) context.Context {
	t.Helper()
	options := []chromedp.ExecAllocatorOption{chromedp.ExecPath(nettest.NeedBrowser(t))}
	options = append(options, chromedp.DefaultExecAllocatorOptions[:]...)
	// A test talks to nobody but its own servers: no updates, no QUIC, no lists from the vendor.
	options = append(options, chromedp.DisableGPU, chromedp.WSURLReadTimeout(startTimeout),
		chromedp.Flag("disable-quic", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("no-pings", true), chromedp.Flag("lang", "en-US"))
	if os.Geteuid() == 0 {
		options = append(options, chromedp.NoSandbox) // Chromium's sandbox refuses to start as root
	}
	for _, flag := range flags {
		options = append(options, option(flag))
	}
	allocator, cancelAllocator := chromedp.NewExecAllocator(context.Background(), options...)
	t.Cleanup(cancelAllocator)
	ctx, cancel := chromedp.NewContext(allocator)
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("starting the browser: %v", err)
	}
	return ctx
}

func option(flag string) chromedp.ExecAllocatorOption {
	name, value, ok := strings.Cut(flag, "=")
	if !ok {
		return chromedp.Flag(name, true)
	}
	return chromedp.Flag(name, value)
}

// Tab opens a tab of its own: no cookie, cache or storage is shared with another. It ends with the test.
func Tab(t testing.TB, browser context.Context) context.Context {
	t.Helper()
	ctx, cancel := chromedp.NewContext(browser, chromedp.WithNewBrowserContext())
	t.Cleanup(cancel)
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("opening a tab: %v", err)
	}
	limited, cancelLimited := context.WithTimeout(ctx, tabTimeout)
	t.Cleanup(cancelLimited)
	return limited
}

// Watch fails the test for every complaint of the tab's pages: what they write to the console, an exception that
// nothing caught, and what the browser reports itself, such as a violation of the Content-Security-Policy. Complaints
// that contain one of the allowed texts pass.
func Watch(t testing.TB, tab context.Context, allowed ...string) {
	t.Helper()
	complain := func(text string) {
		contains := func(part string) bool { return strings.Contains(text, part) }
		if !slices.ContainsFunc(allowed, contains) {
			t.Errorf("the page complains: %s", text)
		}
	}
	err := chromedp.Listen(tab, func(ev any) {
		switch ev := ev.(type) {
		case *runtime.EventExceptionThrown:
			complain(ev.ExceptionDetails.Text + " " + describe(ev.ExceptionDetails.Exception))
		case *runtime.EventConsoleAPICalled:
			for _, arg := range ev.Args {
				complain(describe(arg))
			}
		case *log.EventEntryAdded:
			complain(ev.Entry.Text)
		}
	})
	if err != nil {
		t.Fatalf("listening to the tab: %v", err)
	}
}

func describe(o *runtime.RemoteObject) string {
	if o == nil {
		return ""
	}
	return o.Description + string(o.Value)
}

// Until waits until a JavaScript expression is true in the tab's page. The page polls it itself, every 20 ms; an
// exception counts as not yet.
func Until(t testing.TB, tab context.Context, expression string) {
	t.Helper()
	const poll = `new Promise(done => { const test = () => { try { if (%s) return done(true) } catch {}
		setTimeout(test, 20) }; test() })`
	_, err := chromedp.Run(tab, chromedp.Evaluate[bool](fmt.Sprintf(poll, expression), chromedp.EvalAwaitPromise))
	if err != nil {
		t.Fatalf("waiting until %s: %v", expression, err)
	}
}
