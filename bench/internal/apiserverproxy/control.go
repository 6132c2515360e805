package apiserverproxy

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"path/filepath"
	"time"

	authv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/lab"
	"varco.dev/internal/nettest"
)

// Ports in the control plane's network namespace.
const (
	targetSmall = 8080
	targetPage  = 8081
	frontPort   = 8443
)

// firstTarget is the number in targetNet of the first target.
const firstTarget = 1

// targetNet is a network of pods.
var targetNet = nettest.PodNetOf(200).V4

// controlPlane is a place with a real API server. Inside says that its proxy subresources are varco's.
func (o *options) controlPlane(ctx context.Context, inside bool, dir string) (p *place, err error) {
	l := &lab.Lab{Binary: o.lab, Dir: filepath.Join(dir, "lab")}
	if inside {
		l.UpArgs = []string{"--apiserver-proxy"}
	}
	p = &place{end: l.Down, apiserver: lab.APIServer, frontPort: frontPort}
	defer func() {
		if err != nil {
			err = errors.Join(err, p.close())
		}
	}()
	if err := l.Up(ctx); err != nil {
		return p, err
	}
	if err := p.meet(l); err != nil {
		return p, err
	}
	addresses, err := p.addresses()
	if err != nil {
		return p, err
	}
	if err := p.serveTargets(ctx, dir, addresses, targetSmall, targetPage); err != nil {
		return p, err
	}
	if err := o.frontFiles(l, dir); err != nil {
		return p, err
	}
	_, api, err := l.API()
	if err != nil {
		return p, err
	}
	if err := (&store{api: api, small: targetSmall, page: targetPage}).write(ctx, addresses); err != nil {
		return p, err
	}
	p.token, err = token(ctx, api)
	return p, err
}

// meet finds the processes of the lab and their namespace, and prepares clients.
func (p *place) meet(l *lab.Lab) (err error) {
	p.cluster = map[string]contender.PID{}
	for _, name := range []string{processAPI, processEtcd} {
		if p.cluster[name], err = l.Component(name); err != nil {
			return err
		}
	}
	if p.ns, err = l.Machine(); err != nil {
		return err
	}
	if p.administrator, err = l.Trust(p.apiserver.Addr(), true); err != nil {
		return err
	}
	p.stranger, err = l.Trust(p.apiserver.Addr(), false)
	return err
}

// addresses gives the place those of all targets, and returns them and one that nobody has.
func (p *place) addresses() (out []netip.Addr, err error) {
	for i := range endpoints + 1 {
		b := targetNet.Addr().As4()
		b[3] = byte(firstTarget + i)
		a := netip.AddrFrom4(b)
		if err := p.ns.AddAddr("lo", netip.PrefixFrom(a, a.BitLen())); err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// frontFiles writes the kubeconfig of a front, and says where its certificates are.
func (o *options) frontFiles(l *lab.Lab, dir string) (err error) {
	o.kubeconfig = filepath.Join(dir, "front.kubeconfig")
	if o.pki, err = l.PKI(""); err != nil {
		return err
	}
	return l.WriteKubeconfig(o.kubeconfig, lab.APIServer.String())
}

// frontArgs are the arguments of a front at the address.
func (o *options) frontArgs(at netip.AddrPort) []string {
	pki := func(name string) string { return filepath.Join(o.pki, name) }
	return append([]string{"apiserver-proxy", "front",
		"--kubeconfig=" + o.kubeconfig,
		"--bind-address=" + at.Addr().String(), fmt.Sprintf("--secure-port=%d", at.Port()),
		"--tls-cert-file=" + pki("apiserver.crt"), "--tls-private-key-file=" + pki("apiserver.key"),
		"--client-ca-file=" + pki("ca.crt"),
		"--proxy-client-cert-file=" + pki("front-proxy-client.crt"), "--proxy-client-key-file=" + pki("front-proxy-client.key"),
	}, o.varcoArgs...)
}

// tokenTime is how long the client's token serves.
const tokenTime = time.Hour

func token(ctx context.Context, api kubernetes.Interface) (string, error) {
	req := &authv1.TokenRequest{Spec: authv1.TokenRequestSpec{ExpirationSeconds: ptr.To(int64(tokenTime.Seconds()))}}
	got, err := api.CoreV1().ServiceAccounts(namespace).CreateToken(ctx, client, req, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("create token: %w", err)
	}
	return got.Status.Token, nil
}
