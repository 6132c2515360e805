package ui_test

import (
	"bytes"
	"context"
	"flag"
	"image/png"
	"os"
	"path/filepath"
	"testing"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"varco.dev/internal/nettest/browser"
)

var update = flag.Bool("update", false, "rewrite the screenshots in docs")

const (
	// maxShot is how large a screenshot may be, in bytes: the repository keeps every version of it.
	maxShot = 150 << 10
	// shotWidth and shotHeight are in pixels.
	shotWidth, shotHeight = 1240, 750
)

// screenshots takes the pictures of the page that stand in the documentation, and writes them with -update.
func screenshots(t *testing.T, chromium context.Context) {
	c := newCluster(t)
	c.shop()
	tab := open(t, chromium, c.address())
	do(t, tab, chromedp.EmulateViewport(shotWidth, shotHeight))
	for _, theme := range []string{"light", "dark"} {
		do(t, tab, prefer(theme))
		browser.Until(t, tab, `document.querySelectorAll("td.ready[data-state=all]").length > 5`)
		picture, err := chromedp.Run(tab, chromedp.CaptureScreenshot())
		if err != nil {
			t.Fatal(err)
		}
		save(t, "kubectl-proxy-"+theme+".png", picture)
	}
}

// save keeps a picture if that was asked for. Its size depends on the fonts of the machine, so it counts only then.
func save(t *testing.T, name string, picture []byte) {
	t.Helper()
	size, err := png.DecodeConfig(bytes.NewReader(picture))
	if err != nil || size.Width != shotWidth || size.Height != shotHeight {
		t.Errorf("%s: %v, %d x %d", name, err, size.Width, size.Height)
	}
	if !*update {
		return
	}
	if len(picture) > maxShot {
		t.Errorf("%s has %d bytes, the limit is %d", name, len(picture), maxShot)
	}
	if err := os.WriteFile(filepath.Join("..", "..", "..", "docs", name), picture, 0o644); err != nil {
		t.Fatal(err)
	}
}

// prefer makes the system prefer a theme.
func prefer(theme string) chromedp.Action[chromedp.Void] {
	return chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, err := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: theme}},
		})
		return err
	})
}
