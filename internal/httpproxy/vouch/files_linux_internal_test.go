package vouch

import (
	"log/slog"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"k8s.io/client-go/rest"
)

// TestNoFiles names what blocks or never ends where files should be: each reader must say so at once.
func TestNoFiles(t *testing.T) {
	pipe := filepath.Join(t.TempDir(), "pipe")
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	origin := func(ca, cert string) error {
		o, err := NewOrigin(&rest.Config{Host: "https://127.0.0.1:1", TLSClientConfig: rest.TLSClientConfig{CAFile: ca}})
		if err == nil {
			_, err = o.lanes(cert, cert)
		}
		return err
	}
	trust := func(c TrustConfig) error {
		c.Log = slog.New(slog.DiscardHandler)
		_, err := NewTrust(c).read(t.Context())
		return err
	}
	for path, want := range map[string]string{pipe: "it is a pipe, not a file", "/dev/zero": "it is a device, not a file"} {
		files := PairFiles{CertFile: path, KeyFile: path}
		for name, err := range map[string]error{
			"the API server's authority":   origin(path, ""),
			"the front-proxy certificate":  origin("", path),
			"the serving certificate":      NewPairs(PairsConfig{Serving: files}).Load(),
			"a named certificate":          second(sni(files)),
			"the authorities of clients":   trust(TrustConfig{ClientCAFile: path}),
			"the front proxies' authority": trust(TrustConfig{ProxyCAFile: path}),
		} {
			if err == nil || !strings.Contains(err.Error(), path+": "+want) {
				t.Errorf("%s: %v", name, err)
			}
		}
	}
	if Digest([]string{pipe}) == Digest([]string{"/dev/zero"}) {
		t.Error("two reasons not to read make no difference")
	}
}

func second(_ pair, err error) error { return err }
