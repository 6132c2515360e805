package filewatch_test

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"varco.dev/internal/filewatch"
)

func TestRead(t *testing.T) {
	dir := t.TempDir()
	for name, content := range map[string]string{"file": "content", "empty": "", "full": "12345678", "large": "123456789"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for name, target := range map[string]string{"link": "file", "link of link": "link", "loose": "nowhere", "folder link": "."} {
		if err := os.Symlink(target, filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	tests := []struct {
		name, path string
		want       string
		err        string // a part of it; the path is another
	}{
		{"file", "file", "content", ""},
		{"empty", "empty", "", ""},
		{"as large as may be", "full", "12345678", ""},
		{"larger", "large", "", "it is larger than 8 bytes"},
		{"link", "link", "content", ""},
		{"link to a link", "link of link", "content", ""},
		{"folder", ".", "", "it is a folder, not a file"},
		{"link to a folder", "folder link", "", "it is a folder, not a file"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			path := filepath.Join(dir, tt.path)
			got, err := filewatch.Read(path, 8)
			if string(got) != tt.want {
				t.Errorf("got %q, want %q", got, tt.want)
			}
			if (err != nil) != (tt.err != "") || err != nil && (!strings.Contains(err.Error(), tt.err) || !strings.Contains(err.Error(), path)) {
				t.Errorf("error %v, want one with %q and %q", err, tt.err, path)
			}
		})
	}
	for _, name := range []string{"absent", "loose"} {
		if _, err := filewatch.Read(filepath.Join(dir, name), 8); !errors.Is(err, fs.ErrNotExist) {
			t.Errorf("%s: %v", name, err)
		}
	}
}
