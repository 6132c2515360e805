package apiserverproxy_test

import (
	"compress/gzip"
	"context"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	"github.com/chromedp/chromedp"

	"varco.dev/internal/apiserverproxy"
	"varco.dev/internal/nettest/browser"
)

// site is an application that knows nothing of a proxy, and notes what it is asked for.
type site struct {
	mu    sync.Mutex
	asked map[string]string // path -> Cookie
}

// first is a page with URLs in all the ways that pages have them, and second one with a base. What they need to load is
// named by what it is.
const (
	first = `<!doctype html><title>first</title><link rel="stylesheet" href="/style.css"><link rel=icon href=/icon.png>
<link rel="preload" as="image" imagesrcset="/preload.png 1x">
<svg width="9" height="9"><title/><style/><image href="/drawn.png" width="9" height="9"/><use xlink:href='/sprite.svg#a'/></svg>
<!-- <img src="/comment.png"> --><script>"<!-- <script>"; "</script>"; "<img src='/script.png'>" //--></script>
<img src="/image.png" src="/second.png"><IMG SRC = /unquoted.png><img src="relative.png"><img src="&#x2f;escaped.png?a=1&amp;b=2&copy=3">
<img srcset="/set,1.png 1x, /set2.png 2x"><picture><source srcset="/picture.png"><img src="/nopicture.png"></picture>
<table background="/table.png"><tr><td>x</table><video poster="/poster.png"></video><iframe src="/frame?x"></iframe>
<object data="/object.html" type="text/html"></object><input type="image" src="/button.png">
<form id="form" action="/second" method="get"><input name="q" value="1"></form>
<script type="module" src="/module.js"></script>`
	second = `<!doctype html><base href="/deep/er/"><title>second</title><img src="based.png"><img src="/rooted.png"><a id="link" href="../third">x</a>`
)

func (s *site) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	s.mu.Lock()
	s.asked[r.RequestURI] = r.Header.Get("Cookie")
	s.mu.Unlock()
	h := w.Header()
	h.Set("Content-Type", "text/html; charset=utf-8")
	switch r.URL.Path {
	case "/":
		h.Set("Location", "http://"+r.Host+"/first")
		h.Set("Set-Cookie", "session=1; Path=/; HttpOnly")
		w.WriteHeader(http.StatusSeeOther)
	case "/first":
		h.Set("Link", `</header.css>; rel=preload; as=style`)
		h.Set("Content-Encoding", "gzip")
		z := gzip.NewWriter(w)
		_, _ = io.WriteString(z, first)
		_ = z.Close()
	case "/second":
		_, _ = io.WriteString(w, second)
	case "/deep/third":
		_, _ = io.WriteString(w, `<meta content="0; URL='/fourth'" http-equiv="refresh">`)
	case "/fourth":
		_, _ = io.WriteString(w, `<title>fourth</title>`)
	case "/style.css", "/header.css":
		h.Set("Content-Type", "text/css")
	case "/module.js":
		h.Set("Content-Type", "text/javascript")
		_, _ = io.WriteString(w, `await Promise.all([...document.images].map(i => i.complete || new Promise(done => i.onload = i.onerror = done)))
			const scope = options => navigator.serviceWorker.register("worker.js", options).then(r => new URL(r.scope).pathname, () => "nothing")
			window.scope = await scope({scope: "/"}) + ", " + await scope()`)
	case "/worker.js":
		h.Set("Content-Type", "text/javascript")
		h.Set("Service-Worker-Allowed", "../../../../../../../..")
	case "/icon.png":
		w.WriteHeader(http.StatusNoContent)
	default:
		h.Set("Content-Type", "image/svg+xml")
		_, _ = io.WriteString(w, `<svg xmlns="http://www.w3.org/2000/svg" width="9" height="9"><g id="a"/></svg>`)
	}
}

// TestBrowser has a browser go through an application, and wants none of its requests elsewhere than below the prefix, each with
// the application's cookie.
func TestBrowser(t *testing.T) {
	chromium := browser.New(t)
	for name, option := range map[string]func(*apiserverproxy.Config){
		"core":       func(*apiserverproxy.Config) {},
		"aggregated": func(c *apiserverproxy.Config) { c.Aggregated, c.Base = true, apiserverproxy.BaseAggregated },
	} {
		t.Run(name, func(t *testing.T) {
			base := apiserverproxy.BaseCore
			s := newStage(t, oneWeb(), option, func(c *apiserverproxy.Config) { base = max(c.Base, base) })
			app := &site{asked: map[string]string{}}
			s.target("10.1.0.1:80", app.ServeHTTP)
			prefix := base + strings.TrimPrefix(service, apiserverproxy.BaseCore)
			visit(t, browser.Tab(t, chromium), s.ours.URL, prefix)
			close(s.passed)
			for r := range s.passed {
				if r.RequestURI == "/favicon.ico" {
					continue // of pages that name no icon, whatever their path
				}
				t.Errorf("the browser has asked for %s, which is not below %s", r.RequestURI, prefix)
			}
			app.check(t)
		})
	}
}

// visit goes from page to page.
func visit(t *testing.T, tab context.Context, server, prefix string) {
	if err := chromedp.Do(tab, chromedp.Navigate(server+prefix)); err != nil {
		t.Fatal(err)
	}
	for _, step := range []struct{ path, wait, then string }{
		{"/first", `window.scope`, `document.getElementById("form").submit()`},
		{"/second?q=1", `document.readyState === "complete"`, `document.getElementById("link").click()`},
		{"/fourth", `document.title === "fourth"`, ``},
	} {
		arrives(t, tab, fmt.Sprintf(`location.pathname + location.search === %q && %s`, prefix+step.path, step.wait))
		if step.path == "/first" {
			scope, err := chromedp.Run(tab, chromedp.Evaluate[string](`window.scope`))
			if want := "nothing, " + prefix + "/"; err != nil || scope != want {
				t.Errorf("a service worker may control: %s, %v; want %s", scope, err, want)
			}
		}
		if _, err := chromedp.Run(tab, chromedp.Evaluate[any](step.then)); step.then != "" && err != nil {
			t.Fatal(err)
		}
	}
}

// arrives waits until an expression is true, in this page or one that it leads to by itself.
func arrives(t *testing.T, tab context.Context, expression string) {
	t.Helper()
	const poll = `new Promise(done => { const test = () => { try { if (%s) return done(true) } catch {}
		setTimeout(test, 20) }; test() })`
	for {
		_, err := chromedp.Run(tab, chromedp.Evaluate[bool](fmt.Sprintf(poll, expression), chromedp.EvalAwaitPromise))
		if err == nil {
			return
		}
		if tab.Err() != nil || !strings.Contains(err.Error(), "-32000") { // its page has given way to another
			t.Fatalf("waiting until %s: %v", expression, err)
		}
	}
}

// check wants what the pages name, and nothing else, to have been asked for.
func (s *site) check(t *testing.T) {
	want := strings.Fields(`/ /first /style.css /header.css /preload.png /drawn.png /sprite.svg /image.png /unquoted.png /relative.png
		/escaped.png?a=1&b=2&copy=3 /set,1.png /picture.png /table.png /poster.png /frame?x /object.html /button.png /module.js /worker.js
		/second?q=1 /deep/er/based.png /rooted.png /deep/third /fourth`)
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, path := range want {
		cookie, ok := s.asked[path]
		switch {
		case !ok:
			t.Errorf("%s was not asked for", path)
		case path != "/" && cookie != "session=1":
			t.Errorf("%s was asked for with the cookie %q", path, cookie)
		}
	}
	for path := range s.asked {
		if !slices.Contains(want, path) && path != "/icon.png" {
			t.Errorf("%s was asked for, which no page names", path)
		}
	}
}
