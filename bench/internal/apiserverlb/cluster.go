package apiserverlb

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/netip"
	"path/filepath"
	"syscall"
	"time"

	"github.com/vishvananda/netlink"
	"golang.org/x/sync/errgroup"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/lab"
)

// cluster is a place with API servers, which can be harmed one by one.
type cluster struct {
	place
	lab     *lab.Lab
	binary  string
	servers []*apiServer
	etcd    contender.PID
}

// apiServer is one of them, on a machine of its own.
type apiServer struct {
	lab.Control
	process *contender.Process
}

// openCluster starts a control plane of three API servers. The bench runs them itself: the lab has no flags for them.
func (o *options) openCluster(ctx context.Context, dir string) (c *cluster, err error) {
	c = &cluster{binary: o.lab, place: place{dir: dir, balancer: netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), balancerPort)},
		lab: &lab.Lab{Binary: o.lab, Dir: filepath.Join(dir, "lab"), APIServers: backendCount}}
	defer func() {
		if err != nil {
			err = errors.Join(err, c.close())
		}
	}()
	if err := c.lab.Up(ctx); err != nil {
		return c, err
	}
	if c.etcd, err = c.lab.Component("etcd"); err != nil {
		return c, err
	}
	if c.ns, err = c.lab.Client(); err != nil {
		return c, err
	}
	if c.caFile, err = c.lab.PKI("ca.crt"); err != nil {
		return c, err
	}
	if c.trust, err = c.lab.Trust(lab.APIServer.Addr(), true); err != nil {
		return c, err
	}
	return c, c.startServers(ctx, o.plan.Delay)
}

// identity is the response header by which API servers tell who they are, and flag makes server number i say its number.
// Nothing else in their answers differs.
const identity = "Strict-Transport-Security"

func identityFlag(i int) string {
	return fmt.Sprintf("--strict-transport-security-directives=max-age=%d", i+1)
}

// whose is the number of the server that has answered, or less than 0.
func whose(h http.Header) int {
	var n int
	if _, err := fmt.Sscanf(h.Get(identity), "max-age=%d", &n); err != nil {
		return -1
	}
	return n - 1
}

func (c *cluster) startServers(ctx context.Context, delay time.Duration) error {
	for i := range backendCount {
		control, err := c.lab.Take(ctx, i)
		if err != nil {
			return err
		}
		control.Args = append(control.Args, identityFlag(i), "--shutdown-delay-duration="+delay.String())
		c.servers = append(c.servers, &apiServer{Control: control})
		c.backends = append(c.backends, control.At)
	}
	g, ctx := errgroup.WithContext(ctx)
	for i := range c.servers {
		g.Go(func() error { return c.startServer(ctx, i) })
	}
	return g.Wait()
}

// startServer starts an API server and returns when it is ready.
func (c *cluster) startServer(ctx context.Context, i int) (err error) {
	s := c.servers[i]
	program := contender.Contender{Name: "kube-apiserver", Path: c.binary, Args: s.Args}
	if s.process, err = contender.Start(s.NS, program, filepath.Join(c.dir, fmt.Sprintf("kube-apiserver-%d.log", i))); err != nil {
		return err
	}
	client := c.client(s.At)
	defer client.CloseIdleConnections()
	return await(ctx, s.process.Check, func() error {
		ctx, cancel := context.WithTimeout(ctx, time.Second)
		defer cancel()
		_, err := get(ctx, client, "https://"+s.At.String()+"/readyz")
		return err
	})
}

// signal sends a signal to an API server.
func (c *cluster) signal(i int, s syscall.Signal) error {
	if err := syscall.Kill(int(c.servers[i].process.PID()), s); err != nil {
		return fmt.Errorf("signal API server %d: %w", i, err)
	}
	return nil
}

// endLimit is how long an API server may take to end once it accepts nothing any more; then it is killed, as a kubelet does.
const endLimit = 7 * time.Second

// restart ends an API server as a kubelet does, and starts it again.
func (c *cluster) restart(ctx context.Context, i int, delay time.Duration) error {
	if err := c.signal(i, syscall.SIGTERM); err != nil {
		return err
	}
	for deadline := time.Now().Add(delay + endLimit); c.servers[i].process.Check() == nil && time.Now().Before(deadline); {
		if err := sleep(ctx, retryPause); err != nil {
			return err
		}
	}
	c.servers[i].process.Stop()
	return c.startServer(ctx, i)
}

// link is the interface of the machine of an API server.
const link = "eth0"

// cut takes the machine of an API server from the network: nothing that is sent to it arrives, and nobody says so.
func (c *cluster) cut(i int) error {
	return c.servers[i].NS.Netlink(func(h *netlink.Handle) error {
		l, err := h.LinkByName(link)
		if err != nil {
			return fmt.Errorf("find interface %s: %w", link, err)
		}
		return h.LinkSetDown(l)
	})
}

// mend undoes cut. The kernel has forgotten the way to other networks.
func (c *cluster) mend(i int) error {
	s := c.servers[i]
	return errors.Join(s.NS.LinkUp(link), s.NS.AddDefaultRoute(s.Gateway))
}

// close ends everything, whatever state it is in.
func (c *cluster) close() error {
	for _, s := range c.servers {
		if s.process != nil && s.process.Check() == nil {
			_ = syscall.Kill(int(s.process.PID()), syscall.SIGKILL) // it would wait for its clients
			s.process.Stop()
		}
	}
	errs := []error{c.place.close(), c.lab.Down()}
	for _, s := range c.servers {
		errs = append(errs, s.NS.Close())
	}
	return errors.Join(errs...)
}
