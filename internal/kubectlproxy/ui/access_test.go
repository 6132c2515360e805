package ui_test

import (
	"context"
	"testing"

	"github.com/google/go-cmp/cmp"

	"varco.dev/internal/nettest/browser"
)

func testAccessible(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	c.shop()
	tab := open(t, chromium, c.address())
	browser.Until(t, tab, row("data/redis:redis/TCP")+`.innerText.includes("1/1")`)
	order := []string{}
	for range 6 {
		press(t, tab, "Tab")
		order = append(order, eval[string](t, tab, focused))
	}
	want := []string{"theme", "search", "namespace", "bookshop/checkout:grpc/TCP", "bookshop/checkout:metrics/TCP", "bookshop/gateway:http/TCP"}
	if diff := cmp.Diff(want, order); diff != "" {
		t.Errorf("order of the focus: -want +got:\n%s", diff)
	}
	if outline := eval[string](t, tab, `getComputedStyle(document.activeElement).outlineStyle`); outline != "solid" {
		t.Errorf("the outline of what has the focus is %s", outline)
	}
	for name, expression := range map[string]string{
		"controls without a name": `[...document.querySelectorAll("button, input, select, a")].filter(e => !(e.ariaLabel || e.labels?.length ||
			e.innerText.trim()))`,
		"rows and cells without a role": `[...document.querySelectorAll("#services *")].filter(e =>
			/^(TR|TH|TD|TBODY|THEAD)$/.test(e.tagName) && !e.role)`,
		"rows of the wrong number of columns": `(() => { let left = []; return [...document.querySelectorAll("#services tr[data-key]")].filter(row => {
			let n = left.filter(l => l-- > 0).length; left = left.map(l => l - 1).filter(l => l > 0);
			for (const cell of row.cells) { n += cell.colSpan; if (cell.rowSpan > 1) left.push(cell.rowSpan - 1) }
			return n !== document.querySelectorAll("thead th").length }) })()`,
		"ids given twice":              `[...document.querySelectorAll("[id]")].filter(e => document.querySelectorAll("#" + e.id).length > 1)`,
		"marks that are read aloud":    `[...document.querySelectorAll(".mark, .dot, svg")].filter(e => e.ariaHidden !== "true")`,
		"new tabs that can reach back": `[...document.links].filter(a => a.target !== "_blank" || !a.relList.contains("noopener"))`,
	} {
		found := eval[[]string](t, tab, expression+`.map(e => e.outerHTML)`)
		if len(found) > 0 {
			t.Errorf("%s: %q", name, found)
		}
	}
	if got := eval[string](t, tab, `document.querySelector("[role=status]").ariaLive + " " + document.documentElement.lang`); got != "polite en" {
		t.Errorf("the live region and the language are %q", got)
	}
}

// testContrast computes the contrast of every text with what it stands on, as WCAG 2 does, and wants level AA of both
// themes.
func testContrast(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	c.shop()
	tab := open(t, chromium, c.address())
	browser.Until(t, tab, row("data/redis:redis/TCP")+`.innerText.includes("1/1")`)
	press(t, tab, "/", "Enter") // a row with the focus has a ground of its own
	const poor = `(() => {
		const rgb = c => { const [r, g, b, a = 1] = c.match(/[\d.]+/g).map(Number); return { a, v: [r, g, b] } };
		const light = ({ v }) => v.map(x => x / 255).map(x => x <= .04045 ? x / 12.92 : ((x + .055) / 1.055) ** 2.4)
			.reduce((sum, x, i) => sum + x * [.2126, .7152, .0722][i], 0);
		const ground = e => { for (; e; e = e.parentElement) { const c = rgb(getComputedStyle(e).backgroundColor); if (c.a > 0) return c } };
		const own = e => [...e.childNodes].some(n => n.nodeType === 3 && n.data.trim());
		const texts = [...document.querySelectorAll("body *")].filter(e => own(e) && e.checkVisibility() && !e.closest(".spoken"));
		window.texts = texts.length;
		return texts.flatMap(e => {
			const [a, b] = [light(rgb(getComputedStyle(e).color)), light(ground(e))].sort((x, y) => y - x);
			const ratio = (a + .05) / (b + .05);
			return ratio < 4.5 ? [ratio.toFixed(2) + " " + e.outerHTML] : [];
		});
	})()`
	for _, theme := range []string{"light", "dark"} {
		do(t, tab, prefer(theme))
		if found := eval[[]string](t, tab, poor); len(found) > 0 {
			t.Errorf("%s: poor contrast: %q", theme, found)
		}
		if n := eval[int](t, tab, `window.texts`); n < 100 {
			t.Errorf("%s: looked at %d texts only", theme, n)
		}
	}
}
