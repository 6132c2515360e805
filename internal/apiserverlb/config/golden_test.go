package config_test

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/json"
	"encoding/pem"
	"flag"
	"fmt"
	"maps"
	"math/big"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"golang.org/x/tools/txtar"
	"sigs.k8s.io/yaml"

	"varco.dev/internal/apiserverlb/config"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden reads the section config.yaml of each file of testdata, with DIR for a folder that has the files of
// makeFiles. The section want has the error, or the warnings and all fields that are not as by default.
func TestGolden(t *testing.T) {
	files, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(files) == 0 {
		t.Fatalf("found no golden files: %v", err)
	}
	for _, file := range files {
		t.Run(strings.TrimSuffix(filepath.Base(file), ".txtar"), func(t *testing.T) {
			archive, err := txtar.ParseFile(file)
			if err != nil {
				t.Fatal(err)
			}
			if len(archive.Files) == 1 {
				archive.Files = append(archive.Files, txtar.File{Name: "want"})
			}
			want := &archive.Files[1]
			got := result(t, archive.Files[0].Data)
			if *update {
				want.Data = []byte(got)
				if err := os.WriteFile(file, txtar.Format(archive), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			if diff := cmp.Diff(string(want.Data), got); diff != "" {
				t.Errorf("(-want +got):\n%s", diff)
			}
		})
	}
}

func result(t *testing.T, file []byte) string {
	dir := makeFiles(t)
	path := filepath.Join(dir, "config.yaml")
	if err := os.WriteFile(path, bytes.ReplaceAll(file, []byte("DIR"), []byte(dir)), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Read(path)
	if err != nil {
		text := strings.NewReplacer(dir, "DIR", "; ", "\n\t", "things are wrong: ", "things are wrong:\n\t").Replace(err.Error())
		return "error: " + text + "\n"
	}
	var b strings.Builder
	for _, w := range c.Warnings() {
		fmt.Fprintf(&b, "warning: %s\n", w)
	}
	was, is := fields(t, config.Default()), fields(t, c)
	for _, name := range slices.Sorted(maps.Keys(is)) {
		if is[name] != was[name] {
			fmt.Fprintf(&b, "%s = %s\n", name, is[name])
		}
	}
	for _, name := range slices.Sorted(maps.Keys(was)) {
		if _, ok := is[name]; !ok {
			fmt.Fprintf(&b, "%s is gone\n", name)
		}
	}
	return strings.ReplaceAll(b.String(), dir, "DIR")
}

// fields flattens the configuration: path -> value. It is written as YAML and read again on the way.
func fields(t *testing.T, c config.Config) map[string]string {
	t.Helper()
	text, err := yaml.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	again, err := config.Decode(text)
	if err != nil {
		t.Fatalf("what was written cannot be read: %v\n%s", err, text)
	}
	data, err := json.Marshal(again)
	if err != nil {
		t.Fatal(err)
	}
	var tree any
	if err := json.Unmarshal(data, &tree); err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	flatten(tree, "", out)
	return out
}

func flatten(tree any, path string, out map[string]string) {
	switch tree := tree.(type) {
	case map[string]any:
		for name, value := range tree {
			flatten(value, strings.TrimPrefix(path+"."+name, "."), out)
		}
	case []any:
		for i, value := range tree {
			flatten(value, fmt.Sprintf("%s[%d]", path, i), out)
		}
	default:
		out[path] = fmt.Sprint(tree)
	}
}

// makeFiles makes a folder with ca.crt, tls.crt and tls.key of the same pair, other.key, token, empty and a folder.
func makeFiles(t testing.TB) string {
	t.Helper()
	dir := t.TempDir()
	cert, key := newPair(t)
	_, other := newPair(t)
	for name, data := range map[string][]byte{
		"ca.crt": cert, "tls.crt": cert, "tls.key": key, "other.key": other, "token": []byte("secret\n"), "empty": nil,
	} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Mkdir(filepath.Join(dir, "folder"), 0o700); err != nil {
		t.Fatal(err)
	}
	return dir
}

func newPair(t testing.TB) (cert, key []byte) {
	t.Helper()
	private, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "test"}, NotAfter: time.Now().Add(time.Hour)}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		t.Fatal(err)
	}
	pkcs8, err := x509.MarshalPKCS8PrivateKey(private)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der}), pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: pkcs8})
}
