package cluster

import (
	"crypto/sha256"
	"fmt"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
)

// maxNames bounds how many contexts a message lists.
const maxNames = 10

// Context is a context that is served by its name.
type Context struct {
	Name    string // as in the kubeconfig; any characters
	Label   string // a DNS label of its own, see Clusters.ByLabel
	Current bool
}

// view is one reading of the kubeconfig, and the clusters that were built from it so far. It is never changed: building
// one more cluster makes a new view.
type view struct {
	content string              // identity of the files' content
	known   []string            // all contexts of the kubeconfig, sorted
	served  []Context           // those that are served by name, sorted
	labels  map[string]string   // label -> name of a served context
	current string              // the name of the current context; empty: there is none, as in a pod
	built   map[string]*Cluster // "": the current one
	behind  bool                // the current one is of an earlier reading, since that of this one cannot be used
}

// content returns the identity of what the files hold. Files that cannot be read count by the reason: a kubeconfig
// may come and go.
func (c *Clusters) content() string {
	sum := sha256.New()
	if c.config.Files != nil {
		for _, path := range c.config.Files() {
			data, err := os.ReadFile(path)
			fmt.Fprintf(sum, "%q %v %d\n", path, err, len(data))
			sum.Write(data)
		}
	}
	return string(sum.Sum(nil))
}

// read reads the kubeconfig.
func (c *Clusters) read(content string) (*view, error) {
	raw, err := c.config.Load("").RawConfig()
	if err != nil {
		return nil, fmt.Errorf("read the kubeconfig: %w", err)
	}
	v := &view{content: content, current: raw.CurrentContext, built: map[string]*Cluster{}, labels: map[string]string{}}
	if c.config.Current != "" {
		v.current = c.config.Current
	}
	v.known = slices.Sorted(maps.Keys(raw.Contexts))
	byName := labels(v.known)
	for _, name := range v.known {
		if name != "" && c.serves(name) { // the empty one has no place in a path
			v.served = append(v.served, Context{Name: name, Label: byName[name], Current: name == v.current})
			v.labels[byName[name]] = name
		}
	}
	return v, nil
}

// serves says whether a context of the kubeconfig is served by its name.
func (c *Clusters) serves(name string) bool {
	return c.all() || slices.Contains(c.config.Contexts, name)
}

func (c *Clusters) all() bool {
	return slices.Equal(c.config.Contexts, []string{AllContexts})
}

// has says whether the context is served.
func (v *view) has(name string) bool {
	return slices.ContainsFunc(v.served, func(c Context) bool { return c.Name == name })
}

// with returns the view with one more cluster.
func (v *view) with(key string, cl *Cluster) *view {
	next := *v
	next.built = maps.Clone(v.built)
	next.built[key] = cl
	return &next
}

// list names some of many, for a message.
func list(names []string) string {
	if len(names) == 0 {
		return "none"
	}
	var b strings.Builder
	for i, name := range names {
		if i == maxNames {
			fmt.Fprintf(&b, " and %d more", len(names)-maxNames)
			break
		}
		if i > 0 {
			io.WriteString(&b, ", ")
		}
		fmt.Fprintf(&b, "%q", name)
	}
	return b.String()
}
