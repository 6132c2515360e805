package config

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// problem is one thing that is wrong.
type problem struct {
	field string // its path, such as listeners[0].address
	line  int    // in the file; 0: not known
	text  string
}

func (p problem) String() string {
	if p.line > 0 {
		return fmt.Sprintf("line %d: %s: %s", p.line, p.field, p.text)
	}
	return p.field + ": " + p.text
}

// joined is one error of all problems, in the order of their lines, so that a user can mend them at once.
func joined(list []problem) error {
	slices.SortStableFunc(list, func(a, b problem) int { return a.line - b.line })
	words := make([]string, len(list))
	for i, p := range list {
		words[i] = p.String()
	}
	switch len(words) {
	case 0:
		return nil
	case 1:
		return errors.New(words[0])
	}
	return fmt.Errorf("%d things are wrong: %s", len(words), strings.Join(words, "; "))
}

// checks gathers problems.
type checks struct{ list []problem }

func (c *checks) add(field, format string, args ...any) {
	c.list = append(c.list, problem{field: field, text: fmt.Sprintf(format, args...)})
}

// err adds an error of a field.
func (c *checks) err(field string, err error) {
	if err != nil {
		c.add(field, "%s", err.Error())
	}
}

func (c *checks) within(field string, d metav1.Duration, least, most time.Duration) {
	if d.Duration < least || d.Duration > most {
		c.add(field, "%v is not within %v to %v", d.Duration, least, most)
	}
}

func (c *checks) number(field string, n, least, most int) {
	if n < least || n > most {
		c.add(field, "%d is not within %d to %d", n, least, most)
	}
}

// both says that one of two fields is there without the other.
func (c *checks) both(certField, cert, keyField, key string) {
	switch {
	case cert != "" && key == "":
		c.add(keyField, "it is empty, and %s is not", certField)
	case cert == "" && key != "":
		c.add(certField, "it is empty, and %s is not", keyField)
	}
}

// withLines says where the fields of the problems are, or else what they are in.
func (c *checks) withLines(at lines) []problem {
	for i, p := range c.list {
		for path := p.field; path != "" && c.list[i].line == 0; {
			c.list[i].line = at[path]
			path = path[:max(strings.LastIndexAny(path, ".["), 0)]
		}
	}
	return c.list
}

// Validate names all that is wrong by the path of its field. It looks at no files, and wants Complete to have been
// called.
func (c Config) Validate() error {
	found := &checks{}
	found.all(c)
	return joined(found.list)
}

// CheckFiles names all files that are needed and cannot be used, by their fields. The kubeconfig of backends.kubernetes
// may come later: a node that joins gets its own through the balancer.
func (c Config) CheckFiles() error {
	found := &checks{}
	found.files(c)
	return joined(found.list)
}
