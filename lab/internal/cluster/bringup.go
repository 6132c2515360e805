package cluster

import (
	"context"
	"fmt"
	"net"
	"path/filepath"
	"strings"
	"time"

	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/tools/clientcmd"
	"varco.dev/lab/internal/controlplane"
)

// zones are those that the nodes are in, by turns.
var zones = [...]string{"zone-a", "zone-b"}

// nodeCommand is the command of this binary that is a node agent.
const nodeCommand = "node"

// bringUp starts everything in order and returns when all nodes are ready.
func (s *supervisor) bringUp(ctx context.Context, tasks *tasks, listener net.Listener) error {
	if err := s.makeNetwork(); err != nil {
		return err
	}
	if err := s.makeFiles(); err != nil {
		return err
	}
	forward := &forwarder{listener: listener, log: s.log}
	asked := s.layout.ControlPlanes
	if s.layout.Balancer != nil {
		asked = []controlplane.Host{*s.layout.Balancer}
	}
	for _, h := range asked {
		ns, err := s.network.namespace(h.Name)
		if err != nil {
			return err
		}
		address := net.JoinHostPort(h.Addrs[0].String(), fmt.Sprint(controlplane.APIServerPort))
		forward.targets = append(forward.targets, target{dialFrom(ns), address})
	}
	tasks.run("forwarder", forward.Run)
	tasks.run("control socket", (&controlServer{supervisor: s}).Run)
	pending, err := s.startStages(ctx)
	if err != nil {
		return err
	}
	nodes, err := s.startNodes(ctx, tasks)
	if err != nil {
		return err
	}
	for _, wait := range append(pending, nodes) {
		if err := wait(ctx); err != nil {
			return err
		}
	}
	return nil
}

func (s *supervisor) makeNetwork() (err error) {
	done := s.steps.begin("network")
	s.network, err = newNetwork(s.layout, filepath.Join(s.cfg.Dir, netnsDir), s.log)
	return done(fmt.Sprintf("%s, %s, router, client", count(len(s.layout.ControlPlanes), "control plane"),
		count(len(s.layout.Nodes), "node")), err)
}

func (s *supervisor) makeFiles() error {
	done := s.steps.begin("certificates")
	return done("keys, certificates and kubeconfigs", s.layout.WriteFiles())
}

// waiter returns when something that was started is ready, cannot become so, or ctx ends.
type waiter func(ctx context.Context) error

// startStages starts the control plane. It waits for the stages that others need, and returns what is still to be
// waited for.
func (s *supervisor) startStages(ctx context.Context) (pending []waiter, err error) {
	for _, stage := range s.layout.Stages() {
		wait, err := s.startStage(stage)
		if err != nil {
			return nil, err
		}
		if !stage.Needed {
			pending = append(pending, wait)
			continue
		}
		if err := wait(ctx); err != nil {
			return nil, err
		}
	}
	return pending, nil
}

func (s *supervisor) startStage(stage controlplane.Stage) (waiter, error) {
	done := s.steps.begin(stage.Title)
	var waits []waiter
	for _, c := range stage.Components {
		wait, err := s.startComponent(c)
		if err != nil {
			return nil, done("", err)
		}
		waits = append(waits, wait)
	}
	return func(ctx context.Context) error {
		for _, wait := range waits {
			if err := wait(ctx); err != nil {
				return done("", err)
			}
		}
		return done(count(len(waits), "process"), nil)
	}, nil
}

func (s *supervisor) startComponent(c controlplane.Component) (waiter, error) {
	p := program{name: c.Name, host: c.Host.Name, args: c.Args}
	if c.Varco {
		p.binary = s.cfg.APIServerLB
	}
	proc, err := s.add(p)
	if err != nil {
		return nil, err
	}
	probe, err := controlplane.NewProbe(c, dialFrom(proc.ns))
	if err != nil {
		return nil, err
	}
	if err := proc.start(); err != nil {
		return nil, err
	}
	return func(ctx context.Context) error { return proc.waitReady(ctx, probe) }, nil
}

// checkPeriod is how often a component that starts is asked whether it is ready.
const checkPeriod = 100 * time.Millisecond

func (p *process) waitReady(ctx context.Context, probe *controlplane.Probe) error {
	tick := time.NewTicker(checkPeriod)
	defer tick.Stop()
	var last error
	for {
		if last = probe.Check(ctx); last == nil {
			return nil
		}
		select {
		case <-p.ending():
			return p.failure("ended")
		case <-ctx.Done():
			return p.failure(fmt.Sprintf("is %s (%s)", context.Cause(ctx), last))
		case <-tick.C:
		}
	}
}

// startNodes starts the node agents and what watches the Node objects that they make.
func (s *supervisor) startNodes(ctx context.Context, tasks *tasks) (waiter, error) {
	done := s.steps.begin("nodes")
	client, err := s.client()
	if err != nil {
		return nil, done("", err)
	}
	if err := s.grant(ctx, client); err != nil {
		return nil, done("", err)
	}
	watch, err := newNodeWatch(client, s.layout, s.network)
	if err != nil {
		return nil, done("", err)
	}
	tasks.run("routes to pods", watch.Run)
	agents, err := s.startAgents()
	if err != nil {
		return nil, done("", err)
	}
	return func(ctx context.Context) error {
		return done(count(len(agents), "node")+" ready", watch.waitReady(ctx, agents))
	}, nil
}

// client returns an API client with all rights, which goes through the forwarder.
func (s *supervisor) client() (kubernetes.Interface, error) {
	conf, err := clientcmd.BuildConfigFromFlags("", s.layout.Kubeconfig())
	if err != nil {
		return nil, fmt.Errorf("read kubeconfig: %w", err)
	}
	client, err := kubernetes.NewForConfig(conf)
	if err != nil {
		return nil, fmt.Errorf("make API client: %w", err)
	}
	return client, nil
}

func (s *supervisor) startAgents() (agents []*process, err error) {
	for i, h := range s.layout.Nodes {
		args := append(s.nodeArgs(h), "--zone="+zones[i%len(zones)])
		proc, err := s.add(program{name: h.Name, host: h.Name, args: args})
		if err != nil {
			return nil, err
		}
		if err := proc.start(); err != nil {
			return nil, err
		}
		agents = append(agents, proc)
	}
	return agents, nil
}

func (s *supervisor) nodeArgs(h controlplane.Host) []string {
	dir := s.layout.NodeDir(h.Name)
	args := []string{nodeCommand,
		"--name=" + h.Name,
		"--kubeconfig=" + filepath.Join(dir, "kubeconfig"),
		"--client-ca=" + s.layout.ClientCA(),
		"--cert=" + filepath.Join(dir, "kubelet.crt"),
		"--key=" + filepath.Join(dir, "kubelet.key"),
		"--dir=" + dir,
		"--netns-dir=" + filepath.Join(s.cfg.Dir, netnsDir),
	}
	for _, addr := range h.Addrs {
		args = append(args, "--node-ip="+addr.String())
	}
	for _, image := range s.cfg.Images {
		args = append(args, "--image="+image)
	}
	return args
}

// count is a number with its noun.
func count(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	if strings.HasSuffix(noun, "s") {
		noun += "e"
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
