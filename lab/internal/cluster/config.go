package cluster

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"varco.dev/lab/internal/controlplane"
)

// Defaults of a Config.
const (
	DefaultDir     = "/run/varco-lab"
	DefaultNodes   = 3
	DefaultTimeout = 2 * time.Minute
)

// Host numbers in nettest.NodeNet: control planes are numbers 2 to 9, the balancer is 10, nodes are 11 and up.
const (
	maxControlPlanes = 8
	firstNode        = 11
	maxNodes         = 200
)

// Values of Config.APIServerProxy.
const (
	ProxyOfAll   = "all"
	ProxyOfFirst = "first" // the others are as Kubernetes made them, to compare with
)

// Config says what lab to start. Only Dir has no usable zero value.
type Config struct {
	// Dir is the folder of the lab's state. There is one lab per folder, and the folder holds nothing else.
	Dir string
	// Nodes is the number of nodes, 0 to 200. APIServers is the number of control planes, 1 to 8; 0 means 1.
	Nodes, APIServers int
	// APIServerProxy says which API servers serve the subresources proxy of pods, services and nodes by varco
	// apiserver-proxy in their own process: ProxyOfAll, ProxyOfFirst, or none if it is empty.
	APIServerProxy string
	// APIServerLB is the program varco if all clients shall reach the API servers by way of varco apiserver-lb, which runs on
	// a machine of its own; empty for none.
	APIServerLB string
	// ShutdownDelay is how long an API server that is told to end still serves, with /readyz red.
	ShutdownDelay time.Duration
	// Images says which program stands for an image, as NAME=PATH[,ARG…]; lab/echo needs no entry.
	Images []string
	// Timeout bounds the start; 0 means DefaultTimeout.
	Timeout time.Duration
	// Binary is the varco-lab program, which runs all parts of the lab; empty means this very program.
	Binary string
}

// complete returns the config with absolute paths and without zero values, or what is wrong with it.
func (c Config) complete() (Config, error) {
	if c.APIServers == 0 {
		c.APIServers = 1
	}
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.Nodes < 0 || c.Nodes > maxNodes {
		return c, fmt.Errorf("a lab of %d nodes: want 0 to %d", c.Nodes, maxNodes)
	}
	if c.APIServers < 1 || c.APIServers > maxControlPlanes {
		return c, fmt.Errorf("a lab of %d API servers: want 1 to %d", c.APIServers, maxControlPlanes)
	}
	if !slices.Contains([]string{"", ProxyOfAll, ProxyOfFirst}, c.APIServerProxy) {
		return c, fmt.Errorf("varco apiserver-proxy in %q of the API servers: want %s or %s", c.APIServerProxy, ProxyOfAll, ProxyOfFirst)
	}
	var err error
	if c.Dir, err = absoluteDir(c.Dir); err != nil {
		return c, err
	}
	if c.Binary == "" {
		if c.Binary, err = os.Executable(); err != nil {
			return c, fmt.Errorf("find this program: %w", err)
		}
	}
	if c.Binary, err = filepath.Abs(c.Binary); err != nil {
		return c, err
	}
	if c.APIServerLB != "" {
		image, err := absoluteImage("varco=" + c.APIServerLB)
		if err != nil {
			return c, err
		}
		c.APIServerLB = strings.TrimPrefix(image, "varco=")
	}
	images := make([]string, len(c.Images))
	for i, image := range c.Images {
		if images[i], err = absoluteImage(image); err != nil {
			return c, err
		}
	}
	c.Images = images
	return c, nil
}

// maxDir leaves room for the name of the control socket: the kernel takes socket paths of up to 107 bytes.
const maxDir = 107 - len("/"+controlFile)

// absoluteDir returns the real path of a folder that need not exist yet. It has no symbolic links in it, because those
// lead astray in the supervisor's view of the file system.
func absoluteDir(dir string) (string, error) {
	abs, err := filepath.Abs(dir)
	if err != nil || dir == "" {
		return "", fmt.Errorf("folder %q of the lab cannot be used: %w", dir, errors.Join(err, os.ErrInvalid))
	}
	rest := ""
	for parent := abs; ; parent = filepath.Dir(parent) {
		real, err := filepath.EvalSymlinks(parent)
		if errors.Is(err, os.ErrNotExist) {
			rest = filepath.Join(filepath.Base(parent), rest)
			continue
		}
		if err != nil {
			return "", fmt.Errorf("find the folder of the lab: %w", err)
		}
		abs = filepath.Join(real, rest)
		break
	}
	if len(abs) > maxDir {
		return "", fmt.Errorf("folder %s of the lab: the path is too long, want up to %d bytes", abs, maxDir)
	}
	return abs, nil
}

// absoluteImage checks NAME=PATH[,ARG…] and makes PATH absolute.
func absoluteImage(image string) (string, error) {
	name, program, ok := strings.Cut(image, "=")
	path, args, hasArgs := strings.Cut(program, ",")
	if !ok || name == "" || path == "" {
		return "", fmt.Errorf("image %q: want NAME=PATH[,ARG…]", image)
	}
	path, err := filepath.Abs(path)
	if err != nil {
		return "", err
	}
	info, err := os.Stat(path)
	if err != nil {
		return "", fmt.Errorf("program of image %s: %w", name, err)
	}
	if info.IsDir() || info.Mode()&0o111 == 0 {
		return "", fmt.Errorf("program of image %s: %s is not executable", name, path)
	}
	if hasArgs {
		path += "," + args
	}
	return name + "=" + path, nil
}

// layout returns the machines and paths of the lab; localPort is the port of the forwarder.
func (c Config) layout(localPort int) controlplane.Layout {
	l := controlplane.Layout{Dir: c.Dir, LocalPort: localPort, Hosts: c.hosts(), ShutdownDelay: c.ShutdownDelay}
	if c.APIServerLB != "" {
		balancer := controlplane.NewHost(controlplane.BalancerName, controlplane.BalancerNumber)
		l.Balancer = &balancer
	}
	for i := range c.APIServers {
		number := controlplane.FirstControlPlane + i
		l.ControlPlanes = append(l.ControlPlanes, controlplane.NewHost(fmt.Sprintf("control-plane-%d", i), number))
	}
	for i := range c.Nodes {
		l.Nodes = append(l.Nodes, controlplane.NewHost(fmt.Sprintf("node-%d", i+1), firstNode+i))
	}
	return l
}

// hosts are how many API servers have varco apiserver-proxy in them, from the first on.
func (c Config) hosts() int {
	switch c.APIServerProxy {
	case ProxyOfAll:
		return c.APIServers
	case ProxyOfFirst:
		return 1
	}
	return 0
}

// save and loadConfig hand the config to the supervisor.
func (c Config) save() error {
	b, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(c.Dir, configFile), b, 0o600)
}

func loadConfig(dir string) (c Config, err error) {
	b, err := os.ReadFile(filepath.Join(dir, configFile))
	if err != nil {
		return c, fmt.Errorf("read config of the lab: %w", err)
	}
	if err := json.Unmarshal(b, &c); err != nil {
		return c, fmt.Errorf("read config of the lab: %w", err)
	}
	return c, nil
}
