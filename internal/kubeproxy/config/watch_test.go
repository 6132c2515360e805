package config_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"varco.dev/internal/kubeproxy/config"
)

// watched runs Watch in a bubble, where time passes at once. Each step changes the file; told is what was told after it:
// the cluster's network, an error, or nothing.
func watched(t *testing.T, path string, steps []step) {
	synctest.Test(t, func(t *testing.T) {
		o := options(t, "--config="+path)
		c, err := o.Load()
		if err != nil {
			t.Fatal(err)
		}
		told := make(chan string, 100) // far more than is ever told
		ctx, cancel := context.WithCancel(t.Context())
		ended := make(chan error)
		go func() {
			ended <- o.Watch(ctx, c, func(c config.Config, err error) {
				if err != nil {
					told <- err.Error()
					return
				}
				told <- fmt.Sprint(c.DetectLocal.CIDRs)
			})
		}()
		for _, s := range steps {
			if err := s.change(); err != nil {
				t.Fatalf("%s: %v", s.name, err)
			}
			time.Sleep(10 * time.Second) // time of the bubble
			synctest.Wait()
			var lines []string
			for len(told) > 0 {
				lines = append(lines, <-told)
			}
			got := strings.Join(lines, "\n")
			if !strings.Contains(got, s.told) || s.told == "" && got != "" || strings.Contains(got, "\n") {
				t.Errorf("%s: told %q, want %q", s.name, got, s.told)
			}
		}
		cancel()
		if err := <-ended; err != nil {
			t.Errorf("ended with %v", err)
		}
	})
}

type step struct {
	name   string
	change func() error
	told   string // part of the only thing that is told; empty: nothing
}

func content(network string) []byte {
	return []byte(header + "mode: nftables\nclusterCIDR: " + network + "\n")
}

func TestWatchFile(t *testing.T) {
	path := write(t, string(content("10.1.0.0/16")))
	put := func(data []byte) func() error { return func() error { return os.WriteFile(path, data, 0o600) } }
	watched(t, path, []step{
		{"nothing happens", func() error { return nil }, ""},
		{"other content", put(content("10.2.0.0/16")), "10.2.0.0/16"},
		{"other spelling", put(append(content("10.2.0.0/16"), "# a remark\n"...)), ""},
		{"no YAML", put([]byte("mode: [")), "the configuration stays as it was"},
		{"a wrong field", put(content("10.3.0.0")), `clusterCIDR: "10.3.0.0" is not a network`},
		{"what it was before the mistake", put(content("10.2.0.0/16")), ""},
		{"deleted", func() error { return os.Remove(path) }, "no such file"},
		{"back", put(content("10.4.0.0/16")), "10.4.0.0/16"},
		{"a file renamed over it", func() error {
			if err := os.WriteFile(path+".new", content("10.5.0.0/16"), 0o600); err != nil {
				return err
			}
			return os.Rename(path+".new", path)
		}, "10.5.0.0/16"},
	})
}

// TestWatchConfigMap changes the file as kubelet does: it fills a new folder, and swaps the link ..data.
func TestWatchConfigMap(t *testing.T) {
	dir := t.TempDir()
	fill := func(name, network string) error {
		if err := os.Mkdir(filepath.Join(dir, name), 0o700); err != nil {
			return err
		}
		if err := os.WriteFile(filepath.Join(dir, name, "config.conf"), content(network), 0o600); err != nil {
			return err
		}
		if err := os.Symlink(name, filepath.Join(dir, "..data_tmp")); err != nil {
			return err
		}
		return os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data"))
	}
	if err := fill("..one", "10.1.0.0/16"); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "config.conf")
	if err := os.Symlink("..data/config.conf", path); err != nil {
		t.Fatal(err)
	}
	watched(t, path, []step{
		{"swapped", func() error { return fill("..two", "10.2.0.0/16") }, "10.2.0.0/16"},
		{"the old folder goes", func() error { return os.RemoveAll(filepath.Join(dir, "..one")) }, ""},
		{"swapped again", func() error { return fill("..three", "10.3.0.0/16") }, "10.3.0.0/16"},
	})
}

// TestWatchHalfWritten reads a file while it is being written: the beginning of a configuration is one too.
func TestWatchHalfWritten(t *testing.T) {
	path := write(t, string(content("10.1.0.0/16")))
	var half *os.File
	watched(t, path, []step{{"written in two steps", func() (err error) {
		half, err = os.Create(path)
		if err == nil {
			_, err = half.WriteString(header)
		}
		time.Sleep(1500 * time.Millisecond) // time of the bubble: Watch looks once at the half
		if err == nil {
			_, err = half.Write(content("10.2.0.0/16")[len(header):])
		}
		return err
	}, "10.2.0.0/16"}})
	if err := half.Close(); err != nil {
		t.Error(err)
	}
}

// TestWatchNothing has no file to watch.
func TestWatchNothing(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
		defer cancel()
		o := options(t)
		err := o.Watch(ctx, config.Config{}, func(config.Config, error) { t.Error("told something") })
		if err != nil || ctx.Err() == nil {
			t.Errorf("ended before the context, or with %v", err)
		}
	})
}
