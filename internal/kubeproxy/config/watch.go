package config

import (
	"context"
	"fmt"
	"time"
)

// watchPeriod is the pause between two looks at the file. It is read, not watched by inotify: what a user may do with
// it (replace it, swap the symbolic link that kubelet keeps for a ConfigMap, mount over it, delete it for a while) then
// makes no difference, and nothing is taken from the machine's inotify instances, of which there are few
// (fs.inotify.max_user_instances, 128). kubelet itself takes up to a minute to bring a ConfigMap to a node.
const watchPeriod = time.Second

// Watch tells of new content of the file, until the context ends; it returns nil then. current is what Load returned.
//
// Content counts once it was read twice in a row, so that a file is not read while it is being written. changed gets
// the new Config if it leads to another behaviour, or an error that says what is wrong with the file: once for each
// content, and once if the file cannot be read. The configuration stays as it was then. changed is called by one
// goroutine, and the next look waits for it. Without a file nothing is ever told.
func (o *Options) Watch(ctx context.Context, current Config, changed func(Config, error)) error {
	if o.File == "" {
		<-ctx.Done()
		return nil
	}
	w := watch{options: o, current: current, handled: sighting{content: current.source}, changed: changed}
	tick := time.NewTicker(watchPeriod)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
			w.look()
		}
	}
}

// sighting is what one look at the file has found.
type sighting struct {
	content string
	failure string // why there is no content
}

type watch struct {
	options *Options
	current Config
	handled sighting // the last one that was told, or needed no word
	last    sighting
	changed func(Config, error)
}

// look reads the file once, and acts if it is twice the same but not what has been handled.
func (w *watch) look() {
	data, err := readFile(w.options.File)
	now := sighting{content: string(data)}
	if err != nil {
		now = sighting{failure: err.Error()}
	}
	steady := now == w.last
	w.last = now
	if !steady || now == w.handled {
		return
	}
	w.handled = now
	if err != nil {
		w.changed(Config{}, fmt.Errorf("look for changes, the configuration stays as it was: %w", err))
		return
	}
	w.take(data)
}

func (w *watch) take(data []byte) {
	next, err := w.options.fromFile(data)
	switch {
	case err != nil:
		w.changed(Config{}, fmt.Errorf("take over the changed file, the configuration stays as it was: %w", err))
	case !next.Equal(w.current):
		w.current = next
		w.changed(next, nil)
	}
}
