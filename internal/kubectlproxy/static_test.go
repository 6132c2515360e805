package kubectlproxy_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// withFiles serves a folder with the file note.txt, and a link to a file elsewhere.
func withFiles(s *stage) {
	dir, elsewhere := s.t.TempDir(), filepath.Join(s.t.TempDir(), "far.txt")
	for path, content := range map[string]string{filepath.Join(dir, "note.txt"): "a note", elsewhere: "far away"} {
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			s.t.Fatal(err)
		}
	}
	if err := os.Symlink(elsewhere, filepath.Join(dir, "link.txt")); err != nil {
		s.t.Fatal(err)
	}
	s.config.StaticDir = dir
}

func testStatic(t *testing.T) {
	s := newStage(t, withFiles)
	s.expect(get("/static/note.txt"), "200 a note", "200 a note")
	s.expect(get("/static/link.txt"), "200 far away", "200 far away")
	s.expect(get("/static/none.txt"), "404 404 page not found", "404 404 page not found")
	s.expect(get("/static"), "307 to /static/", "307 to /static/")
	s.expect(get("/version"), "200 GET /version", "200 GET /version")
	for _, v := range []server{s.original, s.ours} {
		if list := v.send(t, get("/static/")); list.Code != 200 || !strings.Contains(list.Body, `href="note.txt"`) {
			t.Errorf("list of the folder: %v", list)
		}
	}
	// A path that leads out of the folder.
	if got := s.ours.send(t, get("/static/../../../../etc/passwd")); got.Code == 200 {
		t.Errorf("a file outside the folder: %v", got)
	}
}

func testStaticMissing(t *testing.T) {
	s := prepare(t)
	s.config.StaticDir = filepath.Join(t.TempDir(), "missing")
	p := startProcess(t, s.path, "--port=0", "--www="+s.config.StaticDir)
	s.original = p.server(t)
	s.startOurs()
	s.expect(get("/static/x"), "404 404 page not found", "404 404 page not found")
	p.says(t, "Failed to stat static file directory")
	if said := s.log.String(); !strings.Contains(said, "level=WARN") || !strings.Contains(said, "--www") {
		t.Errorf("our log: %s", said)
	}
}

func testStaticFilter(t *testing.T) {
	s := newStage(t, withFiles, func(s *stage) {
		s.config.Guard.RejectMethods = "^POST$"
		s.config.Guard.RejectPaths += ",^/static/link"
	})
	s.expect(get("/static/note.txt", "Host: rebound.example"), "200 a note", "403 Status Forbidden")
	s.expect(post("/static/note.txt"), "200 a note", "403 Status Forbidden")
	s.expect(post("/static/note.txt", "Sec-Fetch-Site: cross-site"), "200 a note", "403 Status Forbidden")
	s.expect(get("/static/link.txt"), "200 far away", "403 Status Forbidden")
	s.expect(get("/static/%6cink.txt"), "200 far away", "403 Status Forbidden")
	s.expect(get("/static/note.txt"), "200 a note", "200 a note")
	s = newStage(t, withFiles, func(s *stage) { s.config.Guard.AcceptPaths = "^/api/" })
	s.expect(get("/static/note.txt"), "200 a note", "403 Status Forbidden")
}

func testStaticPrefix(t *testing.T) {
	s := newStage(t, withFiles, func(s *stage) { s.config.StaticPrefix = "/site" })
	s.expect(get("/site/note.txt"), "200 a note", "200 a note")
	s.expect(get("/static/note.txt"), "200 GET /static/note.txt", "200 GET /static/note.txt")
	s = newStage(t, withFiles, func(s *stage) { s.config.StaticPrefix = "site" })
	s.expect(get("/site/note.txt"), "200 GET /site/note.txt", "200 a note") // there it is the name of a host
	s = newStage(t, withFiles, func(s *stage) { s.config.StaticPrefix, s.config.APIPrefix = "/", "/k8s/" })
	s.expect(get("/note.txt"), "200 a note", "200 a note")
	s.expect(get("/k8s/version"), "200 GET /version", "200 GET /version")
	for _, v := range []server{s.original, s.ours} {
		if list := v.send(t, get("/")); list.Code != 200 || !strings.Contains(list.Body, `href="note.txt"`) {
			t.Errorf("the folder at /, not the start page: %v", list)
		}
	}
}
