package ui_test

import (
	"context"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/nettest/browser"
)

func testTable(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	c.shop()
	dual := service("default/dual", "ClusterIP", "10.96.7.7", ":80")
	dual["spec"].(object)["clusterIPs"] = []string{"10.96.7.7", "fd00::77"}
	c.add(dual, 2, 2)
	six := slice(dual, 1, 2)                        // the same pods by their other addresses, of which one is not yet ready
	six["metadata"].(object)["name"] = "dual-z-six" // listed after the other
	six["addressType"] = "IPv6"
	c.set("endpointslices", six)
	c.add(service("default/empty", "ClusterIP", "10.96.7.8", "sctp:9/SCTP"), 0, 0)

	tab := open(t, chromium, c.address())
	browser.Until(t, tab, `document.querySelector("#connection").dataset.kind === "live"`)
	browser.Until(t, tab, row("default/kubernetes:https/TCP")+`.innerText.includes("3/3")`)
	want := []string{
		"checkout | ClusterIP | 10.105.33.164 | 9090 | grpc kubernetes.io/h2c | TCP | 2/3 ready | grpc.checkout.bookshop.svc.localhost (new tab)",
		"9102 | metrics | TCP | 2/3 ready | metrics.checkout.bookshop.svc.localhost (new tab)",
		"gateway | LoadBalancer | 10.99.250.8 203.0.113.17 external | 80 | http | TCP | 2/2 ready | http.gateway.bookshop.svc.localhost (new tab)",
		"443 | https | TCP | 2/2 ready | https.gateway.bookshop.svc.localhost (new tab)",
		"443 | quic | UDP | 2/2 ready | browsers do not speak UDP",
		"mail | ExternalName | smtp.example.com external | – | – | – | – | –",
		"search | ClusterIP | 10.108.17.92 | 8080 | http | TCP | 0/2 ready none ready | http.search.bookshop.svc.localhost (new tab)",
		"web | ClusterIP | 10.110.4.20 | 80 | http | TCP | 3/3 ready | http.web.bookshop.svc.localhost (new tab)",
		"postgres | ClusterIP | headless | 5432 | postgres | TCP | 3/3 ready | postgres.postgres.data.svc.localhost (new tab)",
		"redis | ClusterIP | 10.101.6.45 | 6379 | redis | TCP | 1/1 ready | redis.redis.data.svc.localhost (new tab)",
		"dual | ClusterIP | 10.96.7.7 fd00::77 | 80 | – | TCP | 2/2 ready | 80.dual.default.svc.localhost (new tab)",
		"empty | ClusterIP | 10.96.7.8 | 9 | sctp | SCTP | 0/0 ready no endpoints | browsers do not speak SCTP",
		"kubernetes | ClusterIP | 10.96.0.1 | 443 | https | TCP | 3/3 ready | https.kubernetes.default.svc.localhost (new tab)",
	}
	got := eval[[]string](t, tab, rows)
	if diff := cmp.Diff(want, got[:len(want)]); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	groups := eval[[]string](t, tab, `[...document.querySelectorAll("tr.group")].map(g => g.innerText)`)
	wantGroups := []string{"bookshop 5 Services", "data 2 Services", "default 3 Services", "kube-system 2 Services", "monitoring 2 Services"}
	if diff := cmp.Diff(wantGroups, groups); diff != "" {
		t.Errorf("groups: -want +got:\n%s", diff)
	}
	options := eval[[]string](t, tab, `[...document.querySelector("#namespace").options].map(o => o.text)`)
	wantOptions := []string{"All namespaces", "bookshop", "data", "default", "kube-system", "monitoring", "staging"}
	if diff := cmp.Diff(wantOptions, options); diff != "" {
		t.Errorf("namespaces: -want +got:\n%s", diff)
	}
}

func testLive(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	tab := open(t, chromium, c.address())
	browser.Until(t, tab, `document.querySelector("#panel h2").textContent === "No Services yet"`)

	web := service("shop/web", "ClusterIP", "10.96.0.9", "http:80")
	c.add(web, 0, 2)
	browser.Until(t, tab, row("shop/web:http/TCP")+`.innerText.includes("none ready")`)
	eval[bool](t, tab, `(window.link = `+row("shop/web:http/TCP")+`.querySelector("a")).focus() ?? true`)

	c.set("endpointslices", slice(web, 1, 2))
	browser.Until(t, tab, row("shop/web:http/TCP")+`.querySelector(".ready").dataset.state === "some"`)
	c.add(service("shop/a-first", "ClusterIP", "10.96.0.10", "http:80"), 1, 1)
	browser.Until(t, tab, `document.querySelector("tr[data-key]").dataset.key === "shop/a-first:http/TCP"`)
	if !eval[bool](t, tab, `window.link.isConnected && document.activeElement === window.link`) {
		t.Error("a change of readiness, or a new neighbour, took the link from under the user")
	}

	c.set("services", service("shop/web", "NodePort", "10.96.0.9", "http:8080"))
	browser.Until(t, tab, row("shop/web:http/TCP")+`.innerText.includes("8080")`)
	if got := eval[string](t, tab, focused); got != "shop/web:http/TCP" {
		t.Errorf("the focus moved to %q when its row was made anew", got)
	}
	c.remove("services", web)
	browser.Until(t, tab, `document.querySelectorAll("tr[data-key]").length === 1`)
	c.remove("endpointslices", slice(service("shop/a-first", "", "", "http:80"), 1, 1))
	browser.Until(t, tab, row("shop/a-first:http/TCP")+`.innerText.includes("no endpoints")`)
	if lists := c.listed("services"); lists != 1 {
		t.Errorf("the Services were listed %d times, want once: the rest is the watch's", lists)
	}
}

// testMany shows that the page's work is bounded by what it shows, not by what the cluster has.
func testMany(t *testing.T, chromium context.Context) {
	const services, elementsOfRow, elementsOfPage = 5000, 25, 300
	c := newCluster(t)
	for i := range services {
		c.add(service(numbered(i), "ClusterIP", "10.96.0.1", "http:80"), 1, 1)
	}
	tab := open(t, chromium, c.address())
	browser.Until(t, tab, `document.querySelector("#connection").dataset.kind === "live"`)
	browser.Until(t, tab, `document.querySelector("#count").textContent === "5,000 Services in 10 namespaces"`)
	size := func(want int) {
		t.Helper()
		if n := eval[int](t, tab, `document.querySelectorAll("tr[data-key]").length`); n != want {
			t.Errorf("%d rows, want %d", n, want)
		}
		if n := eval[int](t, tab, `document.querySelectorAll("*").length`); n > elementsOfPage+elementsOfRow*want {
			t.Errorf("%d elements for %d rows", n, want)
		}
	}
	size(300)
	do(t, tab, chromedp.Click(chromedp.CSS("#more")))
	size(600)
	if got, want := eval[string](t, tab, focused), numbered(3000)+":http/TCP"; got != want {
		t.Errorf("the focus is on %s, want the first of the rows that came, %s", got, want)
	}
	press(t, tab, "/", "4", "3", "2", "1")
	browser.Until(t, tab, `document.querySelector("#count").textContent === "1 of 5,000 Services in 1 namespace"`)
	size(1)
	c.set("services", service(numbered(4321), "ClusterIP", "10.96.0.1", "http:81"))
	browser.Until(t, tab, row(numbered(4321)+":http/TCP")+`.innerText.includes("81")`)
}
