package ui

import (
	"bytes"
	"crypto/sha256"
	"embed"
	"encoding/base64"
	"encoding/json"
	"net/http"
	"path"
	"time"
)

const (
	// AssetPrefix is where everything but the page itself is.
	AssetPrefix = "/-/ui/"
	// InfoPath is where Info is, as JSON.
	InfoPath = AssetPrefix + "info.json"
)

// policy lets the page load and connect to what its own origin serves, and nothing else: no inline code or style, no
// frame around it, no form that leads away.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

//go:embed assets
var assets embed.FS

// contentTypes are of the assets. The system's table of types is not asked: on some systems it says that JavaScript is
// text/plain, which browsers refuse to run.
var contentTypes = map[string]string{
	".html": "text/html; charset=utf-8",
	".css":  "text/css; charset=utf-8",
	".js":   "text/javascript; charset=utf-8",
	".svg":  "image/svg+xml",
}

// Handler serves the page at "/", its assets below AssetPrefix, and at InfoPath what info returns for the request; info
// is called at every such request, by many at a time. Other paths are answered 404, other methods than GET and HEAD 405.
//
// It checks nothing: whoever may not see the page must be refused before.
func Handler(info func(*http.Request) Info) http.Handler {
	files := load()
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		protect(w.Header())
		if r.Method != http.MethodGet && r.Method != http.MethodHead {
			w.Header().Set("Allow", "GET, HEAD")
			http.Error(w, "the start page is read only", http.StatusMethodNotAllowed)
			return
		}
		if r.URL.Path == InfoPath {
			serveInfo(w, info(r))
			return
		}
		f, ok := files[r.URL.Path]
		if !ok {
			http.Error(w, "the start page has no such file", http.StatusNotFound)
			return
		}
		f.serve(w, r)
	})
}

// protect sets the headers of every answer. Services open in tabs of their own; Cross-Origin-Opener-Policy keeps those
// tabs from reaching back.
func protect(h http.Header) {
	h.Set("Content-Security-Policy", policy)
	h.Set("X-Content-Type-Options", "nosniff")
	h.Set("Referrer-Policy", "no-referrer")
	h.Set("Cross-Origin-Opener-Policy", "same-origin")
	h.Set("Cross-Origin-Resource-Policy", "same-origin")
}

func serveInfo(w http.ResponseWriter, info Info) {
	if info.APIPrefix == "" {
		info.APIPrefix = "/"
	}
	body, err := json.Marshal(info)
	if err != nil {
		http.Error(w, "encoding the proxy's description: "+err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store") // it can hold the token
	_, _ = w.Write(body)                        // a client that is gone needs no answer
}

// file is one asset.
type file struct {
	content []byte
	kind    string // Content-Type
	etag    string
}

// load returns the assets by the paths where they are served.
func load() map[string]file {
	entries, err := assets.ReadDir("assets")
	if err != nil {
		panic("reading the embedded assets: " + err.Error()) // the binary would be broken
	}
	files := make(map[string]file, len(entries))
	for _, e := range entries {
		content, err := assets.ReadFile("assets/" + e.Name())
		if err != nil {
			panic("reading an embedded asset: " + err.Error())
		}
		at := AssetPrefix + e.Name()
		if e.Name() == "index.html" {
			at = "/"
		}
		files[at] = newFile(e.Name(), content)
	}
	return files
}

func newFile(name string, content []byte) file {
	sum := sha256.Sum256(content)
	tag := base64.RawURLEncoding.EncodeToString(sum[:12])
	return file{content: content, kind: contentTypes[path.Ext(name)], etag: `"` + tag + `"`}
}

// serve answers with the file, or that the browser has it. The browser keeps it but asks each time, so that another
// version of Varco on the same port never meets the modules of the one before.
func (f file) serve(w http.ResponseWriter, r *http.Request) {
	w.Header().Set("Content-Type", f.kind)
	w.Header().Set("Cache-Control", "no-cache")
	w.Header().Set("ETag", f.etag)
	http.ServeContent(w, r, "", time.Time{}, bytes.NewReader(f.content))
}
