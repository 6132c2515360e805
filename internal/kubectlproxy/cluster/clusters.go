package cluster

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"sync"
	"sync/atomic"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"varco.dev/internal/filewatch"
	"varco.dev/internal/httpproxy"
)

// Clusters are the clusters of a kubeconfig. All methods may be called at the same time.
type Clusters struct {
	config  Config
	dropped sync.Once            // the log has said that a client's Authorization was dropped
	mu      sync.Mutex           // held while the kubeconfig is read and clusters are built
	view    atomic.Pointer[view] // nil until the first use
}

// New returns clusters that read nothing until the first of them is asked for.
func New(config Config) *Clusters {
	return &Clusters{config: config}
}

// Run follows the kubeconfig files until the context ends, and returns nil then. New content counts once it was read
// twice in a row, a second apart. New requests then go by it; those that are being served go on with what they began
// with. Content that cannot be used changes nothing but the log; what it names may come later (catchUp). A cluster whose
// entries stay the same keeps its connections.
func (c *Clusters) Run(ctx context.Context) error {
	defer c.closeIdle()
	handled := c.content()
	if v := c.view.Load(); v != nil {
		handled = v.content
	}
	look := func() string {
		c.catchUp()
		return c.content()
	}
	return filewatch.Follow(ctx, handled, look, func(string) {
		if err := c.reload(nil); err != nil {
			c.config.Log.Error("the kubeconfig has changed but cannot be used; what was read before stays in use", "error", err)
		}
	})
}

// Get returns the cluster of a context that is served by name, and for the empty name that of the current context. It
// is built at the first call, which runs no credential plugin. The error names the context and says what is wrong with
// it; for a name that is not served it is a Kubernetes status NotFound that lists those that are.
func (c *Clusters) Get(name string) (*Cluster, error) {
	if v := c.view.Load(); v != nil {
		if cl := v.built[name]; cl != nil {
			return cl, nil
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	v, err := c.loaded()
	if err != nil {
		return nil, err
	}
	if cl := v.built[name]; cl != nil {
		return cl, nil
	}
	if name != "" && !v.has(name) {
		return nil, c.notFound(v, name)
	}
	cl, err := c.open(v, name)
	if err == nil {
		c.view.Store(v.with(name, cl))
	}
	return cl, err
}

// ByLabel returns the cluster of the served context with this label, and that of the current context for the empty
// label. Errors are those of Get.
func (c *Clusters) ByLabel(label string) (*Cluster, error) {
	if label == "" {
		return c.Get("")
	}
	v, err := c.look()
	if err != nil {
		return nil, err
	}
	name, ok := v.labels[label]
	if !ok {
		return nil, c.notFound(v, label)
	}
	return c.Get(name)
}

// Contexts returns those that are served by name, in the order of their names. Without a readable kubeconfig there are
// none.
func (c *Clusters) Contexts() []Context {
	v, err := c.look()
	if err != nil {
		return nil
	}
	return append([]Context(nil), v.served...)
}

// Current returns the name of the current context, which is empty if there is none, as in a pod.
func (c *Clusters) Current() string {
	v, err := c.look()
	if err != nil {
		return ""
	}
	return v.current
}

// Check reads the kubeconfig and says what is wrong: the current context cannot be used though none is served by name,
// or a context of the list that was asked for does not exist. What is fine is kept for the first request.
func (c *Clusters) Check() error {
	v, err := c.look()
	if err != nil {
		return err
	}
	var wrong []error
	for _, name := range c.config.Contexts {
		if !c.all() && !v.has(name) {
			wrong = append(wrong, fmt.Errorf("context %q does not exist; the kubeconfig has %s", name, list(v.known)))
		}
	}
	if _, err := c.Get(""); err != nil && len(v.served) == 0 {
		wrong = append(wrong, err)
	}
	return errors.Join(wrong...)
}

func (c *Clusters) look() (*view, error) {
	if v := c.view.Load(); v != nil {
		return v, nil
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.loaded()
}

// loaded returns the view, and reads the kubeconfig for the first one. c.mu is held.
func (c *Clusters) loaded() (*view, error) {
	if v := c.view.Load(); v != nil {
		return v, nil
	}
	v, err := c.read(c.content())
	if err == nil {
		c.view.Store(v)
	}
	return v, err
}

func (c *Clusters) notFound(v *view, name string) error {
	names := make([]string, len(v.served))
	for i, s := range v.served {
		names[i] = s.Name
	}
	return httpproxy.Status(http.StatusNotFound, metav1.StatusReasonNotFound,
		fmt.Sprintf("context %q is not served here; contexts that are: %s", name, list(names)))
}

// open builds a cluster.
func (c *Clusters) open(v *view, key string) (*Cluster, error) {
	config, err := c.restConfig(key)
	if err != nil {
		return nil, err
	}
	return newCluster(c, key, v.nameOf(key), config)
}

// restConfig reads what the kubeconfig says about a context.
func (c *Clusters) restConfig(key string) (*rest.Config, error) {
	config, err := c.config.Load(key).ClientConfig()
	if err != nil {
		return nil, fmt.Errorf("%s: read the kubeconfig: %w", called(key), err)
	}
	config = rest.CopyConfig(config)
	if config.UserAgent == "" {
		config.UserAgent = rest.DefaultKubernetesUserAgent() // for requests whose client names none, as kubectl does
	}
	return config, nil
}

func (v *view) nameOf(key string) string {
	if key == "" {
		return v.current
	}
	return key
}

// called names a context in a message.
func called(key string) string {
	if key == "" {
		return "current context"
	}
	return fmt.Sprintf("context %q", key)
}
