package discovery

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"log/slog"
	"net/netip"
	"time"

	"varco.dev/internal/filewatch"
)

const (
	// cacheVersion is the version of the file. It changes when a file of before would be read wrongly.
	cacheVersion = 1
	// maxCache bounds what is read of the file, in bytes: 100 sources with 100 addresses each are half of it.
	maxCache = 1 << 20
	// maxCached bounds the sources that are read of it.
	maxCached = 100
	// cacheRetry is the pause before a file that could not be written is tried again.
	cacheRetry = time.Minute
)

// document is the file: what each source said last, by the key of the source.
type document struct {
	Version int                         `json:"version"`
	Sources map[string][]netip.AddrPort `json:"sources"`
}

// cache is the file that keeps what was found for the next start.
type cache struct {
	path    string
	log     *slog.Logger
	wanted  chan []byte // capacity 1: the newest text that is to be in the file; Discovery.keep puts it there
	written []byte      // what the file has, as far as is known; only the goroutine of run uses it, and read before
	failing bool        // which was logged
}

func newCache(path string, log *slog.Logger) *cache {
	return &cache{path: path, log: log, wanted: make(chan []byte, 1)}
}

// load takes what the file has for sources that have said nothing yet.
func (d *Discovery) load() {
	if d.cache == nil {
		return
	}
	known := d.cache.read()
	for _, s := range d.sources() {
		if len(s.addrs) > 0 {
			continue
		}
		if addrs, _, err := d.clean(known[s.key]); err == nil {
			d.mu.Lock()
			s.addrs = addrs
			d.mu.Unlock()
		}
	}
}

// keep has the file say what is known now.
func (d *Discovery) keep() {
	if d.cache == nil {
		return
	}
	doc := document{Version: cacheVersion, Sources: map[string][]netip.AddrPort{}}
	for _, s := range d.sources() {
		if len(s.addrs) > 0 {
			doc.Sources[s.key] = s.addrs
		}
	}
	d.cache.put(encode(doc))
}

// encode returns the text of the file. It is the same for the same content: JSON's keys are sorted.
func encode(doc document) []byte {
	text, _ := json.MarshalIndent(doc, "", "  ") // fails for no value of the type
	return append(text, '\n')
}

// decode reads the text of the file. What it returns is sound, but may be of sources that are no more.
func decode(text []byte) (map[string][]netip.AddrPort, error) {
	var head struct {
		Version int             `json:"version"`
		Sources json.RawMessage `json:"sources"` // another version may have another shape
	}
	if err := json.Unmarshal(text, &head); err != nil {
		return nil, err
	}
	if head.Version != cacheVersion {
		return nil, fmt.Errorf("its version is %d, not %d", head.Version, cacheVersion)
	}
	var doc document
	if err := json.Unmarshal(text, &doc); err != nil {
		return nil, err
	}
	if len(doc.Sources) > maxCached {
		return nil, fmt.Errorf("it has %d sources, more than %d", len(doc.Sources), maxCached)
	}
	for key, addrs := range doc.Sources {
		for _, a := range addrs {
			if !sound(a) {
				return nil, fmt.Errorf("%s: %s is not an address of a server", key, a)
			}
		}
	}
	return doc.Sources, nil
}

// read returns what the file has; nothing if that is of no use, which is logged.
func (c *cache) read() map[string][]netip.AddrPort {
	text, err := filewatch.Read(c.path, maxCache)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	var known map[string][]netip.AddrPort
	if err == nil {
		known, err = decode(text)
	}
	if err != nil {
		c.log.Warn("starts without the API servers found before, since the file cannot be used", "file", c.path, "error", err)
		return nil
	}
	c.written = text
	return known
}

// put has a text written; it does not wait. One that still waits is not needed any more. Only one goroutine calls it.
func (c *cache) put(text []byte) {
	select {
	case <-c.wanted:
	default:
	}
	c.wanted <- text
}

// run writes what is wanted until the context ends, and what is wanted then. A disk that hangs holds up nothing else.
func (c *cache) run(ctx context.Context) {
	var text []byte
	for {
		var retry <-chan time.Time
		if c.failing {
			retry = time.After(cacheRetry)
		}
		select {
		case <-ctx.Done():
			select {
			case text = <-c.wanted:
			default:
			}
			c.store(text)
			return
		case text = <-c.wanted:
		case <-retry:
		}
		c.store(text)
	}
}

// store writes a text if there is one and the file has another. That it cannot is logged once.
func (c *cache) store(text []byte) {
	if text == nil || bytes.Equal(text, c.written) {
		c.failing = false
		return
	}
	if err := replace(c.path, text); err != nil {
		if !c.failing {
			c.log.Warn("cannot keep the API servers found for the next start", "file", c.path, "error", err)
		}
		c.failing = true
		return
	}
	c.failing, c.written = false, text
}
