package discovery_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/backend/discovery"
)

// kept is a discovery of a name with a file.
func kept(t *testing.T, file string, answer reply) *stage {
	t.Helper()
	s := start(t, discovery.Config{Static: static("api:6443"), CacheFile: file}, replies("api", answer))
	return s
}

func read(t *testing.T, file string) string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func write(t *testing.T, file, text string) {
	t.Helper()
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
}

// fileOf returns the text of a file that knows addresses of api:6443, separated by spaces.
func fileOf(version int, addrs string) string {
	quoted := ""
	if addrs != "" {
		quoted = `"` + strings.Join(strings.Fields(addrs), `", "`) + `"`
	}
	return fmt.Sprintf(`{"version": %d, "sources": {"dns api:6443": [%s]}}`, version, quoted)
}

func manySources() string {
	var b strings.Builder
	for i := range 100 {
		fmt.Fprintf(&b, `"%d": [], `, i)
	}
	return strings.Replace(fileOf(1, "10.0.0.1:6443"), `"dns`, b.String()+`"dns`, 1)
}

// names returns the files of a folder.
func names(t *testing.T, dir string) (out []string) {
	t.Helper()
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		out = append(out, e.Name())
	}
	return out
}

// TestFiles starts with a file, without an answer, and looks at what is taken from it and what is written over it after one.
func TestFiles(t *testing.T) {
	for _, c := range []struct {
		name, text string
		want       string
		warnings   int // beside the one that the name fails
	}{
		{"known", fileOf(1, "10.0.0.1:6443"), "10.0.0.1:6443 cache", 0},
		{"both families", fileOf(1, "10.0.0.1:6443 [fd00::1]:6443"), "10.0.0.1:6443 cache, [fd00::1]:6443 cache", 0},
		{"IPv4-mapped", fileOf(1, "[::ffff:10.0.0.1]:6443"), "10.0.0.1:6443 cache", 0},
		{"of fields that are not known", `{"version": 1, "more": {}, "sources": {"x": [], "dns api:6443": ["10.0.0.1:6443"]}}`, "10.0.0.1:6443 cache", 0},
		{"without an address", fileOf(1, ""), "", 0},
		{"of another name", strings.ReplaceAll(fileOf(1, "10.0.0.1:6443"), "api", "other"), "", 0},
		{"empty", "", "", 1},
		{"cut", fileOf(1, "10.0.0.1:6443")[:60], "", 1},
		{"zeros, as after a loss of power", strings.Repeat("\x00", 200), "", 1},
		{"no JSON", "# hello", "", 1},
		{"null", "null", "", 1},
		{"of a newer version", fileOf(2, "10.0.0.1:6443"), "", 1},
		{"of a newer version and shape", `{"version": 2, "sources": ["10.0.0.1:6443"]}`, "", 1},
		{"without a version", `{"sources": {}}`, "", 1},
		{"no address", fileOf(1, "10.0.0.1"), "", 1},
		{"an address that nobody has", fileOf(1, "10.0.0.1:6443 0.0.0.0:6443"), "", 1},
		{"port 0", fileOf(1, "10.0.0.1:0"), "", 1},
		{"too many sources", manySources(), "", 1},
		{"more after it", fileOf(1, " ") + `{}`, "", 1},
		{"too large, at the end", fileOf(1, "10.0.0.1:6443") + strings.Repeat(" ", 1<<20), "", 1},
		{"too large, at the beginning", strings.Repeat(" ", 1<<20) + fileOf(1, "10.0.0.1:6443"), "", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				file := filepath.Join(t.TempDir(), "cache.json")
				write(t, file, c.text)
				s := kept(t, file, reply{err: errServer()})
				if got := describe(s.Found()); got != c.want {
					t.Errorf("found %q, want %q", got, c.want)
				}
				if got := s.log.count("level=WARN"); got != c.warnings+1 {
					t.Errorf("%d warnings: %s", got, s.log.text.String())
				}
				s.end()
				if got := read(t, file); got != c.text {
					t.Errorf("the file became %q without an answer", got)
				}
				s = kept(t, file, reply{addrs: "10.0.0.7"})
				s.end()
				if got := read(t, file); !strings.Contains(got, "10.0.0.7:6443") || strings.Contains(got, "10.0.0.1") {
					t.Errorf("the file became %q", got)
				}
				if got := names(t, filepath.Dir(file)); len(got) != 1 {
					t.Errorf("files %v", got)
				}
			})
		})
	}
}

// The file and its folder are made, and nobody else may read the file.
func TestFileIsMade(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "a", "b", "cache.json")
		s := kept(t, file, reply{addrs: "10.0.0.2 10.0.0.1"})
		info, err := os.Stat(file)
		if err != nil || info.Mode().Perm() != 0o600 {
			t.Fatalf("%v %v", info, err)
		}
		const want = "{\n  \"version\": 1,\n  \"sources\": {\n    \"dns api:6443\": [\n      \"10.0.0.1:6443\",\n      \"10.0.0.2:6443\"\n    ]\n  }\n}\n"
		if got := read(t, file); got != want {
			t.Errorf("got %s", got)
		}
		if got := s.log.count("level=WARN"); got != 0 {
			t.Errorf("log: %s", s.log.text.String())
		}
	})
}

// A file that already says it is not written again: not at the start, not each period.
func TestFileIsNotWrittenUnchanged(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "cache.json")
		kept(t, file, reply{addrs: "10.0.0.1 10.0.0.2"}).end()
		before, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		s := kept(t, file, reply{addrs: "10.0.0.2 10.0.0.1"})
		s.period()
		s.resolver.set("api", reply{err: errServer()})
		s.period()
		s.resolver.set("api", reply{addrs: "::ffff:10.0.0.1 10.0.0.2"})
		s.period()
		after, err := os.Stat(file)
		if err != nil {
			t.Fatal(err)
		}
		if !os.SameFile(before, after) {
			t.Error("the file was replaced")
		}
		s.resolver.set("api", reply{addrs: "10.0.0.3"})
		s.period()
		if after, err = os.Stat(file); err != nil || os.SameFile(before, after) {
			t.Errorf("the file was not replaced: %v", err)
		}
	})
}

// What a write left behind that was cut short changes nothing, and is removed once no other can be writing it.
func TestCutWrites(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		file := filepath.Join(dir, "cache.json")
		write(t, file, fileOf(1, "10.0.0.1:6443"))
		old, young, other := filepath.Join(dir, ".cache.json.1.new"), filepath.Join(dir, ".cache.json.2.new"), filepath.Join(dir, ".cache.jsonx.new")
		for _, f := range []string{old, young, other} {
			write(t, f, fileOf(1, "10.0.0.9:6443")[:40])
		}
		now := time.Now() // the bubble's clock stands in the past
		for f, age := range map[string]time.Duration{old: 2 * time.Minute, young: time.Second, other: time.Hour} {
			if err := os.Chtimes(f, now.Add(-age), now.Add(-age)); err != nil {
				t.Fatal(err)
			}
		}
		s := kept(t, file, reply{err: errServer()})
		s.want("the last whole file counts", "10.0.0.1:6443 cache")
		s.resolver.set("api", reply{addrs: "10.0.0.2"})
		time.Sleep(1100 * time.Millisecond) // the bubble's clock
		synctest.Wait()
		if got := fmt.Sprint(names(t, dir)); got != "[.cache.json.2.new .cache.jsonx.new cache.json]" {
			t.Errorf("files %s", got)
		}
	})
}

// TestFileCannotBeWritten has no folder for the file at first: that is said once, and all else goes on.
func TestFileCannotBeWritten(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "folder")
		write(t, dir, "a file is in the way")
		file := filepath.Join(dir, "cache.json")
		s := kept(t, file, reply{addrs: "10.0.0.1"})
		s.want("at first", "10.0.0.1:6443 dns api")
		s.resolver.set("api", reply{addrs: "10.0.0.2"})
		s.period()
		time.Sleep(10 * time.Minute) // the bubble's clock
		synctest.Wait()
		s.want("then", "10.0.0.2:6443 dns api")
		if got := s.log.count("cannot keep the API servers found"); got != 1 {
			t.Errorf("said %d times: %s", got, s.log.text.String())
		}
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Minute + time.Millisecond) // the bubble's clock
		synctest.Wait()
		if got := read(t, file); !strings.Contains(got, "10.0.0.2:6443") {
			t.Errorf("the file has %q", got)
		}
	})
}

// A file that could not be written is tried once more at the end.
func TestFileAtTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := filepath.Join(t.TempDir(), "folder")
		write(t, dir, "a file is in the way")
		s := kept(t, filepath.Join(dir, "cache.json"), reply{addrs: "10.0.0.1"})
		if err := os.Remove(dir); err != nil {
			t.Fatal(err)
		}
		s.end()
		if got := read(t, filepath.Join(dir, "cache.json")); !strings.Contains(got, `"10.0.0.1:6443"`) {
			t.Errorf("the file has %s", got)
		}
	})
}

// What cannot be read is no reason not to start.
func TestFileIsAFolder(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := t.TempDir()
		s := kept(t, file, reply{addrs: "10.0.0.1"})
		s.want("at first", "10.0.0.1:6443 dns api")
		s.end()
		if got := s.log.count("level=WARN"); got != 2 { // it cannot be read, and it cannot be written
			t.Errorf("log: %s", s.log.text.String())
		}
		if got := names(t, filepath.Dir(file)); len(got) != 1 {
			t.Errorf("left behind %v", got)
		}
	})
}

// The last of many answers is kept, however fast they come.
func TestManyAnswers(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		file := filepath.Join(t.TempDir(), "cache.json")
		w := newWatched()
		s := start(t, discovery.Config{Slices: w.slices, CacheFile: file})
		for i := range 100 {
			w.changes <- addrPorts(fmt.Sprintf("10.0.0.%d:6443", i+1))
		}
		synctest.Wait()
		s.end()
		if got := read(t, file); !strings.Contains(got, `"10.0.0.100:6443"`) {
			t.Errorf("the file has %s", got)
		}
	})
}
