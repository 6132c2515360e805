package ui_test

import (
	"context"
	"net/http"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"varco.dev/internal/nettest/browser"
)

// broken are the browser's own words about answers that these tests ask for. They are no complaint of the page.
var broken = []string{"Failed to load resource"}

const live = `document.querySelector("#connection").dataset.kind === "live"`

func testRecovery(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	c.add(service("shop/web", "ClusterIP", "10.96.0.9", "http:80"), 1, 1)
	tab := open(t, chromium, c.address(), broken...)
	browser.Until(t, tab, live)

	// Cut: the watch goes on where it was.
	c.cut()
	browser.Until(t, tab, `/reconnecting in \d+ s/.test(document.querySelector("#connection").innerText)`)
	c.add(service("shop/second", "ClusterIP", "10.96.0.10", "http:80"), 1, 1)
	browser.Until(t, tab, row("shop/second:http/TCP"))
	browser.Until(t, tab, live)
	if n := c.listed("services"); n != 1 {
		t.Errorf("after a cut the Services were listed %d times, want once", n)
	}

	// Down: the page keeps what it has and says so. Meanwhile the server forgets: only a list brings back what was missed.
	c.refusing(func(string) (int, string) { return http.StatusServiceUnavailable, "the API server is away" })
	c.cut()
	browser.Until(t, tab, `document.querySelector("#connection").title === "the API server is away"`)
	if !eval[bool](t, tab, row("shop/second:http/TCP")+`.checkVisibility()`) {
		t.Error("the table vanished with the connection")
	}
	c.remove("services", service("shop/second", "ClusterIP", "10.96.0.10", "http:80"))
	c.add(service("shop/third", "ClusterIP", "10.96.0.11", "http:80"), 1, 1)
	c.forget()
	c.refusing(func(string) (int, string) { return 0, "" })
	browser.Until(t, tab, row("shop/third:http/TCP")+` && !`+row("shop/second:http/TCP"))
	browser.Until(t, tab, live)
	if n := c.listed("services"); n != 2 {
		t.Errorf("after 410 the Services were listed %d times, want twice", n)
	}
}

// testRest stops and starts a session as the page does while nobody sees it: nothing is lost, nothing listed again.
func testRest(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	c.add(service("shop/web", "ClusterIP", "10.96.0.9", "http:80"), 1, 1)
	tab := open(t, chromium, c.address())
	browser.Until(t, tab, live)
	lists := c.listed("services")
	eval[bool](t, tab, `import("/-/ui/session.js").then(({ Session }) => {
		window.states = [];
		window.session = new Session({ api: "/k8s/", namespace: "", onState: s => states.push(s.kind), onChange() {}, onNamespaces() {} });
		session.start();
		return true })`)
	browser.Until(t, tab, `states.at(-1) === "live"`)
	eval[bool](t, tab, `session.stop() ?? true`)
	browser.Until(t, tab, `states.at(-1) === "paused"`)
	c.add(service("shop/second", "ClusterIP", "10.96.0.10", "http:80"), 1, 1)
	eval[bool](t, tab, `session.start() ?? true`)
	browser.Until(t, tab, `session.store.sorted().length === 2 && states.at(-1) === "live"`)
	if n := c.listed("services") - lists; n != 1 {
		t.Errorf("the session listed the Services %d times, want once", n)
	}
}

func testRefused(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	c.shop()
	const message = `services is forbidden: User "jane" cannot list resource "services" at the cluster scope`
	c.refusing(func(path string) (int, string) {
		if strings.Contains(path, "/namespaces/data/") {
			return 0, ""
		}
		return http.StatusForbidden, message
	})
	tab := open(t, chromium, c.address(), broken...)
	browser.Until(t, tab, `document.querySelector("#choice")`)
	panel := eval[string](t, tab, `document.querySelector("#panel").innerText`)
	if !strings.Contains(panel, "You may not list the Services of all namespaces") || !strings.Contains(panel, message) {
		t.Errorf("the panel says %q", panel)
	}
	choose := func(name string) {
		t.Helper()
		do(t, tab, chromedp.Focus(chromedp.CSS("#choice")))
		press(t, tab, strings.Split(name, "")...)
		press(t, tab, "Enter")
	}
	choose("bookshop")
	browser.Until(t, tab, `document.querySelector("#panel h2").textContent === "You may not list these Services"`)

	// A permission that was given meanwhile is of use once the button is pressed; the page itself waits for minutes.
	c.refusing(func(path string) (int, string) {
		if strings.Contains(path, "/namespaces/data/") || strings.Contains(path, "/namespaces/bookshop/") {
			return 0, ""
		}
		return http.StatusForbidden, message
	})
	do(t, tab, chromedp.Focus(chromedp.CSS("#retry")))
	press(t, tab, "Enter")
	browser.Until(t, tab, `document.querySelectorAll("tr.service").length === 5`)
	do(t, tab, chromedp.Reload())
	browser.Until(t, tab, `document.querySelectorAll("tr.service").length === 5`)
	eval[string](t, tab, `location.hash = ""`)
	browser.Until(t, tab, `document.querySelector("#panel h2").textContent === "You may not list the Services of all namespaces"`)
	choose("data")
	browser.Until(t, tab, `document.querySelectorAll("tr[data-key]").length === 2`)
	browser.Until(t, tab, live)
	if hash := eval[string](t, tab, `location.hash`); hash != "#ns=data" {
		t.Errorf("the URL ends in %q, want #ns=data", hash)
	}
	// A new Service of the namespace arrives: the watch is the namespace's, too.
	c.add(service("data/new", "ClusterIP", "10.96.0.12", "http:80"), 1, 1)
	browser.Until(t, tab, row("data/new:http/TCP")+`.innerText.includes("1/1")`)
	do(t, tab, chromedp.Reload())
	browser.Until(t, tab, row("data/new:http/TCP"))
}

func testNoSlices(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	c.add(service("shop/web", "ClusterIP", "10.96.0.9", "http:80"), 1, 1)
	c.refusing(func(path string) (int, string) {
		if strings.HasSuffix(path, "/endpointslices") {
			return http.StatusForbidden, "no"
		}
		return 0, ""
	})
	tab := open(t, chromium, c.address(), broken...)
	browser.Until(t, tab, row("shop/web:http/TCP")+`.innerText.includes("not permitted")`)
	browser.Until(t, tab, live)
}
