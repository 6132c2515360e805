package apiserverproxy

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"time"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/load"
	"varco.dev/bench/internal/probe"
	"varco.dev/bench/internal/targets"
	"varco.dev/internal/nettest"
)

// place is an API server with its targets, in a network namespace, and what clients need there.
type place struct {
	ns *nettest.Namespace // nil: that of this process
	// apiserver is where the API server is; a front is at another port of the same address.
	apiserver netip.AddrPort
	frontPort uint16
	// cluster are the processes of the control plane by name; kube-apiserver is one of them.
	cluster map[string]contender.PID
	// administrator shows a certificate, stranger does not: it has the token of a service account.
	administrator, stranger *tls.Config
	token                   string

	targets   *contender.Process
	counts    netip.AddrPort
	endpoints []netip.Addr
	end       func() error
}

// Names of processes.
const (
	processAPI   = "kube-apiserver"
	processEtcd  = "etcd"
	processFront = "front"
)

// targetsUse is the name of the command of the targets.
const targetsUse = "targets"

// serveTargets starts the targets in the place. The last address is nobody's.
func (p *place) serveTargets(ctx context.Context, dir string, addresses []netip.Addr, small, page uint16) error {
	self, err := os.Executable()
	if err != nil {
		return fmt.Errorf("find own program: %w", err)
	}
	ready := filepath.Join(dir, "targets.ready")
	if err := os.Remove(ready); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	p.endpoints = addresses[:len(addresses)-1]
	p.counts = netip.AddrPortFrom(addresses[0], page)
	c := contender.Contender{Name: targetsUse, Path: self, Args: []string{"apiserver-proxy", targetsUse, "--ready", ready,
		"--addresses", join(p.endpoints), fmt.Sprintf("--small-port=%d", small), fmt.Sprintf("--page-port=%d", page)}}
	if p.targets, err = contender.Start(p.ns, c, filepath.Join(dir, "targets.log")); err != nil {
		return err
	}
	return await(ctx, ready, p.targets.Check)
}

func join(addresses []netip.Addr) string {
	out := make([]string, len(addresses))
	for i, a := range addresses {
		out[i] = a.String()
	}
	return strings.Join(out, ",")
}

// startLimit is how long the targets, or a contender, may take to start.
const startLimit = 30 * time.Second

// await returns when there is a file.
func await(ctx context.Context, path string, check func() error) error {
	for deadline := time.Now().Add(startLimit); ; {
		_, err := os.Stat(path)
		switch {
		case err == nil || !errors.Is(err, fs.ErrNotExist):
			return err
		case ctx.Err() != nil:
			return context.Cause(ctx)
		case time.Now().After(deadline):
			return fmt.Errorf("no %s in %s", path, startLimit)
		}
		if err := check(); err != nil {
			return err
		}
		probe.Sleep(time.Millisecond)
	}
}

// close ends everything that the place began.
func (p *place) close() error {
	if p.targets != nil {
		p.targets.Stop()
	}
	var err error
	if p.ns != nil {
		err = p.ns.Close()
	}
	return errors.Join(err, p.end())
}

// do runs fn on a thread in the place: sockets that it opens are there.
func (p *place) do(fn func() error) error {
	if p.ns == nil {
		return fn()
	}
	return p.ns.Do(fn)
}

// dial connects in the place; it suits http.Transport.
func (p *place) dial(ctx context.Context, network, address string) (net.Conn, error) {
	if p.ns == nil {
		return (&net.Dialer{}).DialContext(ctx, network, address)
	}
	return p.ns.DialContext(ctx, network, address)
}

// client speaks HTTP/1.1 in the place.
func (p *place) client(with *tls.Config) *http.Client {
	return &http.Client{Transport: &http.Transport{DialContext: p.dial, TLSClientConfig: with}}
}

// getter connects in the place.
func (p *place) getter(r load.Request, connections int) (g *load.Getter, err error) {
	err = p.do(func() error {
		g, err = load.NewGetter(r, connections)
		return err
	})
	return g, err
}

// counted returns how many small requests have come to each target.
func (p *place) counted(ctx context.Context) (out targets.Counts, err error) {
	client := p.client(nil)
	defer client.CloseIdleConnections()
	res, err := get(ctx, client, "http://"+p.counts.String()+targets.CountsPath)
	if err != nil {
		return nil, fmt.Errorf("ask targets for counts: %w", err)
	}
	defer res.Body.Close()
	return out, json.NewDecoder(res.Body).Decode(&out)
}

// get fails on any answer but 200.
func get(ctx context.Context, client *http.Client, url string) (*http.Response, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return nil, err
	}
	res, err := client.Do(req)
	if err == nil && res.StatusCode != http.StatusOK {
		res.Body.Close()
		err = fmt.Errorf("get %s: %s", url, res.Status)
	}
	return res, err
}
