package ui_test

import (
	"context"
	"encoding/json"
	"net/url"
	"regexp"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/kubectlproxy/ui"
	"varco.dev/internal/nettest/browser"
)

// testLinks runs the page's own module over a table.
func testLinks(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	tab := open(t, chromium, c.address())
	long := strings.Repeat("x", 63)
	for _, test := range []struct {
		service object
		place   object
		want    string
	}{
		{service("shop/web", "ClusterIP", "", "http:80"), object{}, "http://http.web.shop.svc.localhost:8001/"},
		{service("shop/web", "NodePort", "", ":80"), object{}, "http://80.web.shop.svc.localhost:8001/"},
		{service("shop/web", "ClusterIP", "", "8080:80"), object{}, "http://80.web.shop.svc.localhost:8001/"},
		{service("shop/web", "ClusterIP", "", "http:80"), object{"label": "prod"}, "http://http.web.shop.svc.prod.localhost:8001/"},
		{service("shop/web", "ClusterIP", "", "http:80"), object{"protocol": "https:", "port": ""}, "https://http.web.shop.svc.localhost/"},
		{service("shop/web", "ClusterIP", "", "http:80"), object{"token": "a&b"}, "http://http.web.shop.svc.localhost:8001/?varco-token=a%26b"},
		{service("shop/web", "ClusterIP", "", "dns:53/UDP"), object{}, "browsers do not speak UDP"},
		{service("shop/web", "ExternalName", "", "http:80"), object{}, "leads out of the cluster"},
		{service("shop/we@evil.example", "ClusterIP", "", "http:80"), object{}, "its name is no host name"},
		{service("shop/web/..", "ClusterIP", "", "http:80"), object{}, "its name is no host name"},
		{service("shop/web", "ClusterIP", "", "x#y:80"), object{}, "http://80.web.shop.svc.localhost:8001/"},
		{service(long+"/"+long, "ClusterIP", "", long+":80"), object{"label": long}, "its host name would be too long"},
	} {
		place := object{"protocol": "http:", "port": "8001", "domain": "localhost"}
		for k, v := range test.place {
			place[k] = v
		}
		arguments, err := json.Marshal([]any{test.service, place})
		if err != nil {
			t.Fatal(err)
		}
		got := eval[string](t, tab, `Promise.all([import("/-/ui/links.js"), import("/-/ui/model.js")]).then(([links, model]) => {
			const [object, place] = `+string(arguments)+`;
			const service = model.toService(object);
			const link = links.linkOf(service, service.ports[0], place);
			return link.href ?? link.why })`)
		if got != test.want {
			t.Errorf("%s at %s: %s, want %s", arguments, place, got, test.want)
		}
	}
	loopback := eval[[]bool](t, tab, `import("/-/ui/links.js").then(({ isLoopback }) => ["localhost", "a.localhost", "127.0.0.1",
		"127.9.8.7", "[::1]", "localhost.evil.example", "127.0.0.1.evil.example", "10.0.0.1", "[::2]", ""].map(isLoopback))`)
	if diff := cmp.Diff([]bool{true, true, true, true, true, false, false, false, false, false}, loopback); diff != "" {
		t.Errorf("isLoopback: -want +got:\n%s", diff)
	}
}

func testOtherName(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	c.add(service("shop/web", "ClusterIP", "10.96.0.9", "http:80"), 1, 1)
	tab := open(t, chromium, strings.Replace(c.address(), "localhost", "varco.test", 1),
		"Cross-Origin-Opener-Policy header has been ignored") // the browser wants TLS or a loopback name for it
	browser.Until(t, tab, live)
	browser.Until(t, tab, row("shop/web:http/TCP"))
	hint := eval[string](t, tab, `document.querySelector("#hint").innerText`)
	if !strings.Contains(hint, "open this page as "+c.address()) {
		t.Errorf("the hint says %q", hint)
	}
	if n := eval[int](t, tab, `document.links.length`); n != 0 {
		t.Errorf("%d links, want none: names below localhost do not lead to this proxy", n)
	}
}

func testContexts(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	c.add(service("shop/web", "ClusterIP", "10.96.0.9", "http:80"), 1, 1)
	c.describe(func(info *ui.Info) {
		info.Contexts = []ui.Context{{Name: "arn:aws/one two", Label: "one"}, {Name: "zwei", Label: "two", Current: true}}
	})
	paths := make(chan string, 16)
	c.refusing(func(path string) (int, string) {
		if strings.HasSuffix(path, "/services") {
			select {
			case paths <- path:
			default: // later watches are of no interest
			}
		}
		return 0, ""
	})
	tab := open(t, chromium, c.address())
	browser.Until(t, tab, row("shop/web:http/TCP")+`.querySelector("a").href.includes("http.web.shop.svc.two.localhost:")`)
	if got, want := <-paths, "/clusters/zwei/api/v1/services"; got != want {
		t.Errorf("asked for %s, want %s", got, want)
	}
	do(t, tab, chromedp.Focus(chromedp.CSS("#context")))
	press(t, tab, "ArrowUp")
	browser.Until(t, tab, row("shop/web:http/TCP")+`.querySelector("a").href.includes("http.web.shop.svc.one.localhost:")`)
	for path := range paths {
		if path == "/clusters/arn:aws/one two/api/v1/services" { // decoded; on the wire it is one segment
			break
		}
	}
	if got, want := eval[string](t, tab, `document.title`), "arn:aws/one two · Varco"; got != want {
		t.Errorf("the title is %q, want %q", got, want)
	}
	if got, want := eval[string](t, tab, `location.hash`), "#context="+url.QueryEscape("arn:aws/one two"); got != want {
		t.Errorf("the URL ends in %q, want %q", got, want)
	}
}

// testHostile has names that the API server would refuse, because a proxy cannot know what answers it.
func testHostile(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	const (
		image  = `<img src=x onerror=window.pwned=1>`
		script = `"><script>window.pwned=1</script>`
	)
	hostile := service("shop/"+image, image, image, "http:80 "+script, ":81/"+script)
	hostile["metadata"].(object)["labels"] = object{"a": script}
	c.add(balanced(hostile, script), 1, 1)
	bad := service("shop/bad-port", "ClusterIP", "10.96.0.9", ":80")
	bad["spec"].(object)["ports"].([]object)[0]["name"] = "javascript:window.pwned=1//"
	c.add(bad, 1, 1)
	number := service("shop/bad-number", "ClusterIP", "10.96.0.9", ":80")
	number["spec"].(object)["ports"].([]object)[0]["port"] = "80@evil.example/"
	c.add(number, 1, 1)
	other := service("x/web", "ClusterIP", "10.96.0.9", "http:80")
	other["metadata"].(object)["namespace"] = script
	c.add(other, 1, 1)
	c.set("namespaces", namespace(script))

	tab := open(t, chromium, c.address()+"#q="+url.QueryEscape(script)+"&ns="+url.QueryEscape(script))
	browser.Until(t, tab, live)
	eval[string](t, tab, `location.hash = "q="`)
	browser.Until(t, tab, `document.querySelectorAll("tr[data-key]").length === 5`)
	text := eval[string](t, tab, `document.body.innerText`)
	for _, want := range []string{image, script} {
		if !strings.Contains(text, want) {
			t.Errorf("the page does not show %s as text", want)
		}
	}
	if eval[bool](t, tab, `window.pwned !== undefined || document.querySelector("img, td script, th script") !== null`) {
		t.Error("a name became markup")
	}
	links := eval[[]string](t, tab, `[...document.links].map(a => a.href)`)
	ours := regexp.MustCompile(`^http://[a-z0-9.-]+\.svc\.localhost:\d+/$`)
	for _, link := range links {
		if !ours.MatchString(link) {
			t.Errorf("a link to %s", link)
		}
	}
	if len(links) != 1 {
		t.Errorf("links %q, want one: bad-port by its number", links)
	}
}
