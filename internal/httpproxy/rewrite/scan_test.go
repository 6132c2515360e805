package rewrite_test

import (
	"bytes"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/net/html"

	"varco.dev/internal/httpproxy/rewrite"
)

// oracle returns the attributes that the tokenizer of golang.org/x/net/html finds in a page, of those that are wanted, and all
// else of it, tag by tag.
func oracle(page []byte) (found []rewrite.Found, rest []string) {
	z := html.NewTokenizer(bytes.NewReader(page))
	for {
		switch z.Next() {
		case html.ErrorToken:
			return found, append(rest, string(z.Raw()))
		case html.StartTagToken, html.SelfClosingTagToken:
			token := z.Token()
			isRefresh := false
			for _, a := range token.Attr {
				isRefresh = isRefresh || token.Data == "meta" && a.Key == "http-equiv" && strings.EqualFold(a.Val, "refresh")
			}
			rest = append(rest, token.Data)
			for _, a := range token.Attr {
				wanted, ifRefresh := rewrite.IsWanted(token.Data, a.Key)
				if wanted && a.Val != "" && (isRefresh || !ifRefresh) {
					found = append(found, rewrite.Found{Element: token.Data, Value: a.Val})
				} else {
					rest = append(rest, a.Key+"="+a.Val)
				}
			}
		default:
			rest = append(rest, string(z.Raw()))
		}
	}
}

// pages are pieces of HTML that have been trouble somewhere.
func pages() []string {
	return []string{
		`<a href="/x">x</a>`, `<A HREF='/x'>`, `<a href=/x>`, `<a href = /x/>`, `<img src=/x/ alt=y/>`, `<a/href=/x>`, `<a / / href=/x>`,
		`<a =href=/x href=/y>`, `<a href href=/x>`, `<a href="/1" href="/2">`, `<a b="c"href="/x">`, `<a href="/x`, `<a href=`, `<a href="">`, `<a href=>`,
		`<a href="/?a=1&amp;b=2&copy=3&lt;&#x2f;&notit;">`, "<a href='/\r\n\x00'>", `<a href="/&quot;&#39;">`, `<a href=/"'>`, `<a x="<a href='/x'>">`,
		`</a href="/x">`, `</ a href="/x"><a href=/y>`, `</><a href=/x>`, `<3 href=/x><a href=/y>`, `<<a href=/x>`, `< a href=/x>`,
		`<!--<a href=/x>--><a href=/y>`, `<!--><a href=/x>`, `<!---><a href=/x>`, `<!----><a href=/x>`, `<!--a--!><a href=/x>`, `<!--a--!--><a href=/x>`,
		`<!--a--!!><a href=/x>--><a href=/y>`, `<!--a--a><a href=/x>-->`, `<!-- - -- -><a href=/x>--->`, `<!-a><a href=/x>`, `<!><a href=/x>`,
		`<!--!><a href=/x>-->`, `<!----!><a href=/x>`, `<!---!><a href=/x>-->`, `<!DOCTYPE html "a>b"><a href=/x>`, `<?xml version="1.0"?><a href=/x>`,
		`<![CDATA[<a href=/x>]]><a href=/y>`, `<svg><![CDATA[>]]><a href=/x></svg>`,
		`<script><a href=/x></script><a href=/y>`, `<script src=/x /><a href=/y></script >`, `<SCRIPT>"</scrip"</script/x><a href=/y>`,
		`<script><!-- <script> </script> <a href=/x> --></script><a href=/y>`, `<script><!--<script></script></script><a href=/x>`,
		`<script><!--<scripty></script><a href=/x>`, `<script><!--></script><a href=/x>`, `<script><!---></script><a href=/x>`, `<script><!-</script><a href=/x>`,
		`<script><!--<script>--></script><a href=/x>`, `<script><!--<script><</script></script</script x="><a href=/x>"><a href=/y>`,
		`<script><!--</scrip></script><a href=/x>`, `<script><!--<script></scriptx></script></script><a href=/x>`,
		`<style><a href=/x></style><a href=/y>`, `<title><a href=/x></title x><a href=/y>`, `<textarea></textareas><a href=/x></textarea><a href=/y>`,
		`<noscript><a href=/x></noscript><a href=/y>`, `<xmp></xmp><a href=/y>`, `<iframe src=/x><a href=/y></iframe>`, `<plaintext><a href=/x></plaintext>`,
		`<title><</title><a href=/y>`, `<title></</title><a href=/y>`,
		`<meta http-equiv=refresh content="0; url=/x">`, `<meta content="0; url=/x" http-equiv="Refresh" a="b">`, `<meta content="0; url=/x" name=y>`,
		`<meta content=0;url=/x http-equiv=refresh>`, `<meta content="0; url=/x" http-equiv=`, `<meta http-equiv content=1;/x http-equiv=refresh>`,
		`<meta http-equiv="&#114;efresh" content="1">`, `<img srcset="/a 1x, /b 2x"><link imagesrcset=/a><a ping="/a /b">`,
		`<svg><use xlink:href="/a#b"/><image href=/x></svg>`, `<averyveryverylongname href=/x><a averyveryverylongattribute=/x href=/y>`,
		"<a\fhref\f=\f/x\f>", "<a\x00 href=/x><a hre\x00f=/y>", "", "<", "</", "<!", "<!-", "<a", "<a ", "<a b", "<a b=", "<a b='", "x<a href=/x>y",
	}
}

// quirk is where the tokenizer leaves the standard: in an escaped script, < before what begins no name ends the escape; and it
// does not know of SVG and MathML, in which a slash ends elements.
func quirk() *regexp.Regexp {
	return regexp.MustCompile(`(?is)<script.*<!--.*<[^/a-z]|<(svg|math|/foreignobject).*<(iframe|no|plaintext|script|style|t|xmp).*/>`)
}

// FuzzHTML compares a scanner with the tokenizer, however a page is cut.
func FuzzHTML(f *testing.F) {
	for _, page := range pages() {
		f.Add([]byte(page), uint8(1), uint8(3))
	}
	odd := quirk()
	f.Fuzz(func(t *testing.T, page []byte, first, then uint8) {
		out, found := rewrite.Scan(page, "", len(page)+1)
		if !bytes.Equal(out, page) {
			t.Fatalf("nothing was to be changed: got %q, want %q", out, page)
		}
		whole, _ := rewrite.Scan(page, "!", len(page)+1)
		for _, sizes := range [][]int{{1}, {int(first) + 1, int(then) + 1}} {
			cut, again := rewrite.Scan(page, "!", sizes...)
			if !bytes.Equal(cut, whole) || !slices.Equal(found, again) {
				t.Fatalf("in pieces of %d: got %q, %q\nas a whole: %q, %q", sizes, cut, again, whole, found)
			}
		}
		if odd.Match(page) || len(page) > 0 && strings.IndexByte("\x00\xfe\xff", page[0]) >= 0 {
			return
		}
		want, rest := oracle(page)
		if len(found) < len(want) || !slices.Equal(found[:len(want)], want) {
			t.Fatalf("%q: got %q\nwant %q", page, found, want)
		}
		if len(found) > len(want) {
			return // in a tag that never ends, of which the tokenizer says nothing
		}
		after, restAfter := oracle(whole)
		for i := range want {
			want[i].Value += "!"
		}
		if d := cmp.Diff(want, after); d != "" {
			t.Fatalf("%q became %q: %s", page, whole, d)
		}
		if d := cmp.Diff(rest, restAfter); d != "" {
			t.Fatalf("%q became %q: %s", page, whole, d)
		}
	})
}

// TestScannerBeyondTheTokenizer has the pages that the tokenizer reads otherwise.
func TestScannerBeyondTheTokenizer(t *testing.T) {
	for page, want := range map[string][]rewrite.Found{
		`<script><!-- 1 <2 <script></script> <a href=/x> --></script><a href=/y>`: {{Element: "a", Value: "/y"}},
		`<svg><title/><path/></svg><a href=/x>`:                                   {{Element: "a", Value: "/x"}},
		`<SVG><style a="b"/><script href=/y /></SVG><a href=/x>`:                  {{Element: "script", Value: "/y"}, {Element: "a", Value: "/x"}},
		`<math><style/></math><a href=/x>`:                                        {{Element: "a", Value: "/x"}},
		`<svg><svg></svg><title/></svg><a href=/x>`:                               {{Element: "a", Value: "/x"}},
		`<svg><title/ ></svg><a href=/x></title><a href=/y>`:                      {{Element: "a", Value: "/y"}},
		`<svg></svg><title/><a href=/x></title><a href=/y>`:                       {{Element: "a", Value: "/y"}},
		`<svg/><title/><a href=/x></title><a href=/y>`:                            {{Element: "a", Value: "/y"}},
		`<svg><p><title/><a href=/x></title><a href=/y>`:                          {{Element: "a", Value: "/y"}},
		`<svg><foreignObject><title/><a href=/x></title><a href=/y>`:              {{Element: "a", Value: "/y"}},
		`<svg><foreignObject></foreignObject><title/><a href=/x></svg>`:           {{Element: "a", Value: "/x"}},
		`<a href="/x" b`:          {{Element: "a", Value: "/x"}},
		"\xff\xfe<a href=/x>":     nil,
		"\xfe\xff<a href=/x>":     nil,
		"\x00<a href=/x>":         nil,
		"\xef\xbb\xbf<a href=/x>": {{Element: "a", Value: "/x"}},
		`<a href="` + strings.Repeat("x", rewrite.MaxValue) + `"><a href=/y>`:                                   {{Element: "a", Value: strings.Repeat("x", rewrite.MaxValue)}, {Element: "a", Value: "/y"}},
		`<a href="` + strings.Repeat("x", rewrite.MaxValue+1) + `"><a href=/y>`:                                 {{Element: "a", Value: "/y"}},
		`<meta content="1;/x" a="` + strings.Repeat("x", rewrite.MaxValue) + `" http-equiv=refresh><a href=/y>`: {{Element: "a", Value: "/y"}},
	} {
		out, got := rewrite.Scan([]byte(page), "", 1000)
		if d := cmp.Diff(want, got); d != "" || string(out) != page {
			t.Errorf("%.80s: %s", page, d)
		}
	}
}

// TestLists is where the URLs are in values that hold several.
func TestLists(t *testing.T) {
	for value, want := range map[string]string{
		"/a": "/p/a", "/a 1x": "/p/a 1x", "/a, /b": "/p/a, /p/b", "/a 1x,/b 2x": "/p/a 1x,/p/b 2x", " , /a  100w ,, /b": " , /p/a  100w ,, /p/b",
		"/a,/b": "/p/a,/b", "/a,b 1x, c 2x": "/p/a,b 1x, c 2x", "/a (x, /y) 1x, /b": "/p/a (x, /y) 1x, /p/b", "/a (x": "/p/a (x", "": "", ",": ",", " ": " ",
		"data:image/png;base64,/A== 1x, /b 2x": "data:image/png;base64,/A== 1x, /p/b 2x", "/a,": "/p/a,", "/a,,, /b,": "/p/a,,, /p/b,", "//other/a, /p/b": "//other/a, /p/b",
	} {
		q := question{source: "http://10.1.1.1/", requestHost: "api", prefix: "/p", contentType: "text/html", body: `<img srcset="` + value + `">`}
		if got := q.ours(t).body; got != `<img srcset="`+want+`">` {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
	for value, want := range map[string]string{"/a /b": "/p/a /p/b", " /a\n": " /p/a\n", "a /b c": "a /p/b c", "": "", " ": " "} {
		q := question{source: "http://10.1.1.1/", requestHost: "api", prefix: "/p", contentType: "text/html", body: `<a ping="` + value + `">`}
		if got := q.ours(t).body; got != `<a ping="`+want+`">` {
			t.Errorf("%q: got %s, want %s", value, got, want)
		}
	}
}
