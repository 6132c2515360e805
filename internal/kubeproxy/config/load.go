package config

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	logsapi "k8s.io/component-base/logs/api/v1"
	"k8s.io/kube-proxy/config/v1alpha1"
)

// maxFile is the size of the largest file that is read, in bytes. A ConfigMap holds no more than this.
const maxFile = 1 << 20

// Load makes a Config of the flags, or of the file that they name. It changes nothing, and may be called again. An error
// names the file or the flag, and all that is wrong with it.
func (o *Options) Load() (Config, error) {
	if o.File == "" {
		k, paced := o.fromFlags()
		c, err := o.build(k, paced, &problems{fromFlags: true}, nil)
		if err != nil {
			return Config{}, fmt.Errorf("check the flags: %w", err)
		}
		return c, nil
	}
	data, err := readFile(o.File)
	if err != nil {
		return Config{}, err
	}
	return o.fromFile(data)
}

// readFile reads a file that may be replaced at any time.
func readFile(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.LimitReader(f, maxFile+1))
	if err != nil {
		return nil, fmt.Errorf("read the configuration: %w", err)
	}
	if len(data) > maxFile {
		return nil, fmt.Errorf("read the configuration %s: it has more than %d bytes", path, maxFile)
	}
	return data, nil
}

// fromFile makes a Config of the content of the file.
func (o *Options) fromFile(data []byte) (Config, error) {
	k, warnings, err := decode(data)
	if err != nil {
		return Config{}, fmt.Errorf("read the configuration %s: %w", o.File, err)
	}
	var notes []Note
	for _, w := range warnings {
		notes = append(notes, Note{Warning: true, Text: o.File + ": left aside: " + w})
	}
	notes = append(notes, fieldNotes(k)...)
	paced := modeSettingsOf(k).minSyncPeriod.Duration != 0
	setDefaults(k)
	o.overlayLogging(&k.Logging)
	c, err := o.build(k, paced, &problems{}, notes)
	if err != nil {
		return Config{}, fmt.Errorf("check the configuration %s: %w", o.File, err)
	}
	c.source = string(data)
	return c, nil
}

// overlayLogging lets the flags of the log go before the file, as upstream (copyLogsFromFlags).
func (o *Options) overlayLogging(to *logsapi.LoggingConfiguration) {
	// Upstream loses these two of a file by this very step, so files that have them are in use.
	to.Options.Text.SplitStream, to.Options.JSON.SplitStream = false, false
	from := o.values.Logging
	for name, set := range map[string]func(){
		"v":                         func() { to.Verbosity = from.Verbosity },
		"logging-format":            func() { to.Format = from.Format },
		"log-flush-frequency":       func() { to.FlushFrequency.Duration = from.FlushFrequency.Duration },
		"vmodule":                   func() { to.VModule = slices.Concat(from.VModule, to.VModule) },
		"log-text-split-stream":     func() { to.Options.Text.SplitStream = from.Options.Text.SplitStream },
		"log-text-info-buffer-size": func() { to.Options.Text.InfoBufferSize = from.Options.Text.InfoBufferSize },
		"log-json-split-stream":     func() { to.Options.JSON.SplitStream = from.Options.JSON.SplitStream },
		"log-json-info-buffer-size": func() { to.Options.JSON.InfoBufferSize = from.Options.JSON.InfoBufferSize },
	} {
		if o.flags.Changed(name) {
			set()
		}
	}
}

// build completes and checks what was read, and gives it its form. paced says that a pause between changes was asked
// for: the default, which upstream needs for its own sake, does not count.
func (o *Options) build(k *v1alpha1.KubeProxyConfiguration, paced bool, p *problems, notes []Note) (Config, error) {
	modeGiven := k.Mode != ""
	setPlatformDefaults(k)
	keepMode(k)
	if name := strings.ToLower(strings.TrimSpace(o.apart.hostname)); name != "" {
		k.HostnameOverride = name
	} else if o.apart.hostname != "" {
		p.add("hostnameOverride", "hostname-override", "it is blank")
	}
	p.validate(k)
	own := o.ownOptions(p)
	if err := p.err(); err != nil {
		return Config{}, err
	}
	c := typed(k)
	c.Client.Master, c.Own = o.apart.master, own
	if !paced {
		c.MinSyncPeriod = 0
	}
	c.Notes = slices.Concat(notes, o.flagNotes(c.Mode), gateNotes(k.FeatureGates), c.notes(modeGiven))
	return c, nil
}

// ownOptions checks the flags that upstream does not have.
func (o *Options) ownOptions(p *problems) Own {
	own := o.own
	own.Counters = Counters(o.apart.counters)
	if !slices.Contains([]Counters{CountNothing, CountConnections, CountAll}, own.Counters) {
		p.list = append(p.list, fmt.Sprintf("--service-counters: %q is none of none, connections, all", own.Counters))
	}
	var err error
	if own.RemoveTaint, err = parseTaint(o.apart.taint); err != nil {
		p.list = append(p.list, "--remove-taint: "+err.Error())
	}
	if err := checkSocket(own.StatusSocket); err != nil {
		p.list = append(p.list, "--status-socket: "+err.Error())
	}
	return own
}

// maxSocketPath is what fits into the kernel's sockaddr_un, without the zero byte at its end (unix(7)).
const maxSocketPath = 107

func checkSocket(path string) error {
	switch {
	case path == "":
	case !filepath.IsAbs(path):
		return errors.New("the path does not begin with /")
	case len(path) > maxSocketPath:
		return fmt.Errorf("the path is longer than %d bytes", maxSocketPath)
	}
	return nil
}
