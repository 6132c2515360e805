package config

import (
	"context"
	"fmt"

	"varco.dev/internal/filewatch"
)

// Watch tells of new content of the file, until the context ends; it returns nil then. current is what Load returned.
//
// Content counts once it was read twice in a row, see filewatch.Follow. changed gets
// the new Config if it leads to another behaviour, or an error that says what is wrong with the file: once for each
// content, and once if the file cannot be read. The configuration stays as it was then. changed is called by one
// goroutine, and the next look waits for it. Without a file nothing is ever told.
func (o *Options) Watch(ctx context.Context, current Config, changed func(Config, error)) error {
	if o.File == "" {
		<-ctx.Done()
		return nil
	}
	w := watch{options: o, current: current, changed: changed}
	return filewatch.Follow(ctx, sighting{content: current.source}, w.look, w.take)
}

// sighting is what one look at the file has found.
type sighting struct {
	content string
	failure string // why there is no content
}

type watch struct {
	options *Options
	current Config
	changed func(Config, error)
}

func (w *watch) look() sighting {
	data, err := readFile(w.options.File)
	if err != nil {
		return sighting{failure: err.Error()}
	}
	return sighting{content: string(data)}
}

func (w *watch) take(now sighting) {
	if now.failure != "" {
		w.changed(Config{}, fmt.Errorf("look for changes, the configuration stays as it was: %s", now.failure))
		return
	}
	next, err := w.options.fromFile([]byte(now.content))
	switch {
	case err != nil:
		w.changed(Config{}, fmt.Errorf("take over the changed file, the configuration stays as it was: %w", err))
	case !next.Equal(w.current):
		w.current = next
		w.changed(next, nil)
	}
}
