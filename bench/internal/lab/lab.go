// Package lab starts a control plane for a benchmark by the varco-lab command, and ends it.
package lab

import (
	"bytes"
	"context"
	"fmt"
	"net/url"
	"os/exec"
	"strconv"
	"syscall"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"
)

// Lab is one control plane without nodes.
type Lab struct {
	// Binary is the varco-lab program, Dir the folder of the lab's state.
	Binary, Dir string
	// UpArgs are further arguments of the start, such as --apiserver-proxy.
	UpArgs []string
	// APIServers is how many control planes there are, each with its own address; 0 means one.
	APIServers int
	config     *clientcmdapi.Config
}

// idle are the components that a benchmark has no use for: they would watch all objects, on the same processors.
var idle = []string{"kube-controller-manager", "kube-scheduler"}

// grace is how long a command may take to end when it is told to.
const grace = 10 * time.Second

// Up starts the lab, or finds the one that is in the folder. Doing it twice is no error.
func (l *Lab) Up(ctx context.Context) error {
	if _, err := l.run(ctx, "kubeconfig"); err != nil {
		args := []string{"--nodes", "0", "--apiservers", strconv.Itoa(max(1, l.APIServers))}
		if _, err := l.run(ctx, "up", append(args, l.UpArgs...)...); err != nil {
			return err
		}
		if err := l.stopIdle(ctx); err != nil {
			return err
		}
	}
	b, err := l.run(ctx, "kubeconfig")
	if err != nil {
		return err
	}
	l.config, err = clientcmd.Load(b)
	return err
}

func (l *Lab) stopIdle(ctx context.Context) error {
	for _, c := range idle {
		for i := range max(1, l.APIServers) {
			if err := l.Stop(ctx, l.name(c, i)); err != nil {
				return err
			}
		}
	}
	return nil
}

// name is how the lab names a component of the control plane number i.
func (l *Lab) name(component string, i int) string {
	if l.APIServers > 1 {
		return fmt.Sprintf("%s-%d", component, i)
	}
	return component
}

// Stop kills a component, as the lab names it.
func (l *Lab) Stop(ctx context.Context, name string) error {
	_, err := l.run(ctx, "stop", "--grace", "0", name)
	return err
}

// Down ends the lab and removes its folder. It works after ctx of the benchmark has ended.
func (l *Lab) Down() error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	_, err := l.run(ctx, "down")
	return err
}

func (l *Lab) run(ctx context.Context, verb string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, l.Binary, append([]string{verb, "--dir", l.Dir}, args...)...)
	cmd.Cancel = func() error { return cmd.Process.Signal(syscall.SIGTERM) } // so that it removes what it has made
	cmd.WaitDelay = grace
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return nil, fmt.Errorf("run %s %s: %w: %s", l.Binary, verb, err, bytes.TrimSpace(errs.Bytes()))
	}
	return out.Bytes(), nil
}

// API is the address of the API server on this machine, and the client for it: without a limit of its own, and in
// protobuf as proxies speak.
func (l *Lab) API() (address string, client kubernetes.Interface, err error) {
	conf, err := clientcmd.NewDefaultClientConfig(*l.config, nil).ClientConfig()
	if err != nil {
		return "", nil, fmt.Errorf("read kubeconfig of the lab: %w", err)
	}
	u, err := url.Parse(conf.Host)
	if err != nil {
		return "", nil, fmt.Errorf("read address of the API server: %w", err)
	}
	conf.QPS = -1
	conf.ContentType = "application/vnd.kubernetes.protobuf"
	conf.AcceptContentTypes = "application/vnd.kubernetes.protobuf,application/json"
	client, err = kubernetes.NewForConfig(rest.AddUserAgent(conf, "varco-bench"))
	return u.Host, client, err
}

// WriteKubeconfig writes a kubeconfig that leads to server, an address and port of where it is used.
func (l *Lab) WriteKubeconfig(path, server string) error {
	conf := l.config.DeepCopy()
	for _, c := range conf.Clusters {
		c.Server = "https://" + server
	}
	return clientcmd.WriteToFile(*conf, path)
}
