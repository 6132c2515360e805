package cluster

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"time"

	"golang.org/x/sys/unix"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"varco.dev/internal/nettest"
)

// Cluster is a lab that is up, seen from the host.
type Cluster struct {
	dir     string
	id      identity
	control *http.Client
}

// Open finds the lab in the folder. The error is ErrNotUp if there is none, or a dead one.
func Open(dir string) (*Cluster, error) {
	dir, err := absoluteDir(dir)
	if err != nil {
		return nil, err
	}
	id, err := readIdentity(dir)
	if errors.Is(err, os.ErrPermission) {
		return nil, ErrNotRoot
	}
	if err != nil || !held(dir) || id.gone() {
		return nil, fmt.Errorf("folder %s: %w", dir, ErrNotUp)
	}
	socket := filepath.Join(dir, controlFile)
	return &Cluster{dir: dir, id: id, control: &http.Client{Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}}, nil
}

// Kubeconfig returns the administrator's kubeconfig, which works for every program on this machine.
func (c *Cluster) Kubeconfig() ([]byte, error) {
	b, err := os.ReadFile(filepath.Join(c.dir, "kubeconfig"))
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig of the lab: %w", err)
	}
	return b, nil
}

// RESTConfig returns the administrator's API client configuration, for use on the host.
func (c *Cluster) RESTConfig() (*rest.Config, error) {
	b, err := c.Kubeconfig()
	if err != nil {
		return nil, err
	}
	conf, err := clientcmd.RESTConfigFromKubeConfig(b)
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig of the lab: %w", err)
	}
	return conf, nil
}

// Namespace opens the network namespace of a machine (node-1, control-plane-0, router, client) or of a pod
// (NAMESPACE/POD, or POD for one in the namespace default). The caller closes it.
func (c *Cluster) Namespace(name string) (*nettest.Namespace, error) {
	// The files are mounts that only the supervisor's mount namespace has.
	dir := filepath.Join(fmt.Sprintf("/proc/%d/root", c.id.pid), c.dir, netnsDir)
	for _, file := range []string{name, strings.ReplaceAll(name, "/", "_"), "default_" + name} {
		path := filepath.Join(dir, file)
		if strings.Contains(file, "/") {
			continue
		}
		if _, err := os.Stat(path); err == nil {
			return nettest.OpenNamespace(name, path)
		}
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("look for %q in the lab: %w", name, err)
	}
	var known []string
	for _, e := range entries {
		known = append(known, strings.ReplaceAll(e.Name(), "_", "/"))
	}
	return nil, fmt.Errorf("no machine and no pod %q in the lab; there are %s", name, strings.Join(known, ", "))
}

// Components returns the processes of the lab in the order in which they were started, the supervisor first.
func (c *Cluster) Components(ctx context.Context) ([]Component, error) {
	var list []Component
	err := c.ask(ctx, http.MethodGet, "/components", func(r io.Reader) error { return json.NewDecoder(r).Decode(&list) })
	return list, err
}

// Stop ends a component, such as kube-apiserver or node-1: by SIGTERM and after the grace time by SIGKILL, at once if
// grace is 0. It returns when the component has ended. One that has ended already is not an error.
func (c *Cluster) Stop(ctx context.Context, component string, grace time.Duration) error {
	return c.ask(ctx, http.MethodPost, "/components/"+url.PathEscape(component)+"/stop?grace="+grace.String(), nil)
}

// Start starts a component that has ended; it does not wait until the component is ready.
func (c *Cluster) Start(ctx context.Context, component string) error {
	return c.ask(ctx, http.MethodPost, "/components/"+url.PathEscape(component)+"/start", nil)
}

// Signal sends a signal, such as unix.SIGHUP, to a component that runs. SIGSTOP makes one hang, for as long as it gets no
// SIGCONT: the kernel takes its connections and keeps what is sent to it, and nothing answers.
func (c *Cluster) Signal(ctx context.Context, component string, sig unix.Signal) error {
	return c.ask(ctx, http.MethodPost, "/components/"+url.PathEscape(component)+"/signal?signal="+unix.SignalName(sig), nil)
}

func (c *Cluster) ask(ctx context.Context, method, path string, read func(io.Reader) error) error {
	req, err := http.NewRequestWithContext(ctx, method, "http://lab"+path, nil)
	if err != nil {
		return err
	}
	resp, err := c.control.Do(req)
	if err != nil {
		return fmt.Errorf("ask the supervisor: %w", err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(resp.Body, 1024))
		return fmt.Errorf("ask the supervisor: %s", strings.TrimSpace(string(text)))
	}
	if read == nil {
		return nil
	}
	if err := read(resp.Body); err != nil {
		return fmt.Errorf("read answer of the supervisor: %w", err)
	}
	return nil
}
