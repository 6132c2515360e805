package ui_test

import (
	"context"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"

	"varco.dev/internal/nettest/browser"
)

func testKeyboard(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	c.shop()
	tab := open(t, chromium, c.address())
	browser.Until(t, tab, live)
	at := func(want string) {
		t.Helper()
		if got := eval[string](t, tab, focused); got != want {
			t.Errorf("the focus is on %q, want %q", got, want)
		}
	}
	press(t, tab, "/")
	at("search")
	press(t, tab, "G", "A", "T", "e", "w", "a", "y", " ", "h", "t", "t", "p")
	browser.Until(t, tab, `document.querySelectorAll("tr[data-key]").length === 3`)
	press(t, tab, "ArrowDown")
	at("bookshop/gateway:http/TCP")
	press(t, tab, "ArrowDown", "ArrowDown")
	at("bookshop/gateway:quic/UDP") // without a link, and still reached
	press(t, tab, "ArrowDown")
	at("bookshop/gateway:quic/UDP") // the last
	press(t, tab, "ArrowUp", "ArrowUp")
	press(t, tab, "Enter")
	_, port, _ := strings.Cut(strings.TrimPrefix(c.URL, "http://"), ":")
	want := "http.gateway.bookshop.svc.localhost:" + port + "/"
	if got := <-c.asked; got != want {
		t.Errorf("the link opened %q, want %q", got, want)
	}
	press(t, tab, "ArrowUp")
	at("search")
	press(t, tab, "/") // a slash in the field is a letter
	browser.Until(t, tab, `document.querySelector("#search").value.endsWith("/")`)
	browser.Until(t, tab, `document.querySelector("#panel h2").textContent === "Nothing matches"`)
	browser.Until(t, tab, `document.querySelector("#announce").textContent === "0 of 12 Services"`)
	press(t, tab, "Escape")
	browser.Until(t, tab, `document.querySelector("#search").value === "" && document.querySelectorAll("tr[data-key]").length > 10`)
	press(t, tab, "Enter", "Escape")
	at("search")
}

func testLocation(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	c.shop()
	tab := open(t, chromium, c.address()+"#q=metrics&ns=kube-system")
	browser.Until(t, tab, `document.querySelectorAll("tr.service").length === 2`)
	if got := eval[string](t, tab, `document.querySelector("#search").value + " " + document.querySelector("#namespace").value`); got != "metrics kube-system" {
		t.Errorf("the fields hold %q", got)
	}
	eval[string](t, tab, `location.hash = "q=9102"`)
	browser.Until(t, tab, `document.querySelectorAll("tr.service").length === 1 && document.querySelector("#search").value === "9102"`)
	do(t, tab, chromedp.Focus(chromedp.CSS("#search")))
	press(t, tab, "Escape")
	browser.Until(t, tab, `location.hash === ""`)
	for search, want := range map[string]string{
		"loadbalancer":   "bookshop/gateway:http/TCP",
		"udp quic":       "bookshop/gateway:http/TCP",
		"h2c":            "bookshop/checkout:grpc/TCP",
		"postgres  DATA": "data/postgres:postgres/TCP",
	} {
		eval[string](t, tab, `location.hash = "q=" + encodeURIComponent("`+search+`")`)
		browser.Until(t, tab, `document.querySelectorAll("tr.service").length === 1`)
		browser.Until(t, tab, `document.querySelector("tr.service").dataset.key === "`+want+`"`)
	}
}

func testTheme(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	tab := open(t, chromium, c.address())
	ground := func() string {
		t.Helper()
		return eval[string](t, tab, `document.querySelector("#theme").ariaPressed + " " + getComputedStyle(document.body).backgroundColor`)
	}
	do(t, tab, prefer("light"), chromedp.Focus(chromedp.CSS("#theme")))
	light := ground()
	press(t, tab, "Enter")
	dark := ground()
	if light == dark || !strings.HasPrefix(light, "false") || !strings.HasPrefix(dark, "true") {
		t.Errorf("the button changed %q to %q", light, dark)
	}
	do(t, tab, chromedp.Reload())
	browser.Until(t, tab, live)
	if got := ground(); got != dark {
		t.Errorf("after a reload it is %q, want %q", got, dark)
	}
	do(t, tab, chromedp.Focus(chromedp.CSS("#theme")))
	press(t, tab, "Enter") // light, as the system: it follows again
	do(t, tab, prefer("dark"))
	browser.Until(t, tab, `document.querySelector("#theme").ariaPressed === "true"`)
	if got := ground(); got != dark {
		t.Errorf("when the system turned dark it is %q, want %q", got, dark)
	}
}
