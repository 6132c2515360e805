package node

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"strconv"
	"time"

	v1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// threshold turns the results of single probes into a state, which changes only after some equal results in a row.
type threshold struct {
	success, failure int
	row              int
	last             bool
}

// newThreshold reads a probe's thresholds.
func newThreshold(p *v1.Probe) threshold {
	return threshold{success: max(int(p.SuccessThreshold), 1), failure: max(int(p.FailureThreshold), 1)}
}

// add takes a result and says whether the state is that result now.
func (t *threshold) add(ok bool) (reached bool) {
	if ok != t.last || t.row == 0 {
		t.last, t.row = ok, 0
	}
	t.row++
	if ok {
		return t.row >= t.success
	}
	return t.row >= t.failure
}

// prober runs the probes of one container, from the node's namespace as the kubelet does.
type prober struct {
	dial func(ctx context.Context, network, address string) (net.Conn, error)
	ip   netip.Addr // the pod's
	spec *v1.Container
	exec func(ctx context.Context, argv []string) error
}

var errGRPC = errors.New("the lab has no grpc probes")

// once runs a probe; nil is success. It takes no longer than the probe's timeout.
func (p *prober) once(ctx context.Context, probe *v1.Probe) error {
	ctx, cancel := context.WithTimeout(ctx, time.Duration(max(probe.TimeoutSeconds, 1))*time.Second)
	defer cancel()
	switch {
	case probe.HTTPGet != nil:
		return p.httpGet(ctx, probe.HTTPGet)
	case probe.TCPSocket != nil:
		addr, err := p.address(probe.TCPSocket.Host, probe.TCPSocket.Port)
		if err != nil {
			return err
		}
		c, err := p.dial(ctx, "tcp", addr)
		if err != nil {
			return err
		}
		return c.Close()
	case probe.Exec != nil:
		return p.exec(ctx, probe.Exec.Command)
	}
	return errGRPC
}

func (p *prober) address(host string, port intstr.IntOrString) (string, error) {
	if host == "" {
		host = p.ip.String()
	}
	n := port.IntVal
	if port.Type == intstr.String {
		n = 0
		for _, cp := range p.spec.Ports {
			if cp.Name == port.StrVal {
				n = cp.ContainerPort
			}
		}
		if n == 0 {
			v, err := strconv.ParseUint(port.StrVal, 10, 16)
			if err != nil {
				return "", fmt.Errorf("container has no port named %q", port.StrVal)
			}
			n = int32(v)
		}
	}
	return net.JoinHostPort(host, strconv.Itoa(int(n))), nil
}

// httpGet asks once, on a connection of its own. Status 200 to 399 is success, also after a redirect within the host;
// a redirect elsewhere is success and not followed, as in the kubelet.
func (p *prober) httpGet(ctx context.Context, a *v1.HTTPGetAction) error {
	addr, err := p.address(a.Host, a.Port)
	if err != nil {
		return err
	}
	scheme := "http"
	if a.Scheme == v1.URISchemeHTTPS {
		scheme = "https"
	}
	path := a.Path
	if path == "" || path[0] != '/' {
		path = "/" + path
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, scheme+"://"+addr+path, nil)
	if err != nil {
		return err
	}
	req.Header.Set("User-Agent", "kube-probe/lab")
	req.Header.Set("Accept", "*/*")
	for _, h := range a.HTTPHeaders {
		if http.CanonicalHeaderKey(h.Name) == "Host" {
			req.Host = h.Value
			continue
		}
		req.Header.Add(h.Name, h.Value)
	}
	return p.ask(req)
}

func (p *prober) ask(req *http.Request) error {
	client := http.Client{
		Transport: &http.Transport{
			DialContext:       p.dial,
			DisableKeepAlives: true,
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: true}, // probes do not verify, by the API's contract
		},
		CheckRedirect: func(next *http.Request, via []*http.Request) error {
			if next.URL.Hostname() != via[0].URL.Hostname() || len(via) >= 10 {
				return http.ErrUseLastResponse
			}
			return nil
		},
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, 10<<10))
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("HTTP probe failed with statuscode: %d", resp.StatusCode)
	}
	return nil
}

// eagerPeriod is how often a container is probed that has just started, until a probe succeeds or one period is over.
// A program needs some milliseconds until it listens; the first probe would often be too early and the next a whole
// period later.
const eagerPeriod = 50 * time.Millisecond

// watchStart is watch for a container that is not known to serve yet. Failures of the eager first probes do not count.
func (p *prober) watchStart(ctx context.Context, probe *v1.Probe, report func(err error)) {
	probe = probe.DeepCopy()
	if !sleep(ctx, time.Duration(probe.InitialDelaySeconds)*time.Second) {
		return
	}
	probe.InitialDelaySeconds = 0
	for end := time.Now().Add(period(probe)); time.Now().Before(end) && p.once(ctx, probe) != nil; {
		if !sleep(ctx, eagerPeriod) {
			return
		}
	}
	p.watch(ctx, probe, report)
}

// watch probes until ctx ends and calls report each time a threshold is reached with a result; it is called again for
// an equal result.
func (p *prober) watch(ctx context.Context, probe *v1.Probe, report func(err error)) {
	if !sleep(ctx, time.Duration(probe.InitialDelaySeconds)*time.Second) {
		return
	}
	tick := time.NewTicker(period(probe))
	defer tick.Stop()
	t := newThreshold(probe)
	for {
		err := p.once(ctx, probe)
		if ctx.Err() != nil {
			return
		}
		if t.add(err == nil) {
			report(err)
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

func period(probe *v1.Probe) time.Duration {
	return time.Duration(max(probe.PeriodSeconds, 1)) * time.Second
}
