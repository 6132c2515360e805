package kubectlproxy

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"varco.dev/bench/internal/contender"
	"varco.dev/bench/internal/fakeapi"
	"varco.dev/bench/internal/probe"
)

// serverUse is the name of the server's command.
const serverUse = "server"

// serverLimit is how long the server may take to listen.
const serverLimit = 30 * time.Second

// server is the process behind the proxies.
type server struct {
	process *contender.Process
	address netip.AddrPort
	// kubeconfig is a file that leads to it, with a token.
	kubeconfig string
	// direct speaks HTTP/2 to it.
	direct *http.Client
}

// startServer starts this program a second time.
func startServer(ctx context.Context, dir string) (s *server, err error) {
	self, err := os.Executable()
	if err != nil {
		return nil, fmt.Errorf("find own program: %w", err)
	}
	c := contender.Contender{Name: serverUse, Path: self, Args: []string{"kubectl-proxy", serverUse, "--dir", dir}}
	s = &server{}
	if s.process, err = contender.Start(nil, c, filepath.Join(dir, "server.log")); err != nil {
		return nil, err
	}
	if err := s.meet(ctx, dir); err != nil {
		s.process.Stop()
		return nil, err
	}
	return s, nil
}

// meet waits until the server listens, and prepares its clients.
func (s *server) meet(ctx context.Context, dir string) error {
	text, err := await(ctx, filepath.Join(dir, fakeapi.AddressFile), s.process.Check)
	if err != nil {
		return fmt.Errorf("wait for the server: %w", err)
	}
	if s.address, err = netip.ParseAddrPort(string(text)); err != nil {
		return fmt.Errorf("read address of the server: %w", err)
	}
	ca, err := os.ReadFile(filepath.Join(dir, fakeapi.CAFile))
	if err != nil {
		return err
	}
	pool := x509.NewCertPool()
	pool.AppendCertsFromPEM(ca)
	s.direct = &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{RootCAs: pool}, ForceAttemptHTTP2: true}}
	s.kubeconfig = filepath.Join(dir, "kubeconfig")
	return writeKubeconfig(s.kubeconfig, "https://"+s.address.String(), ca)
}

// await reads a file as soon as it is there.
func await(ctx context.Context, path string, check func() error) ([]byte, error) {
	for deadline := time.Now().Add(serverLimit); ; {
		b, err := os.ReadFile(path)
		switch {
		case err == nil || !errors.Is(err, fs.ErrNotExist):
			return b, err
		case ctx.Err() != nil:
			return nil, context.Cause(ctx)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("nothing in %s", serverLimit)
		}
		if err := check(); err != nil {
			return nil, err
		}
		probe.Sleep(time.Millisecond)
	}
}

// writeKubeconfig writes what both proxies use: no credential plugin, as that would be most of their start.
func writeKubeconfig(path, url string, ca []byte) error {
	const name = "bench"
	c := api.NewConfig()
	c.Clusters[name] = &api.Cluster{Server: url, CertificateAuthorityData: ca}
	c.AuthInfos[name] = &api.AuthInfo{Token: "a-token-of-no-server"}
	c.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name}
	c.CurrentContext = name
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		return fmt.Errorf("write kubeconfig: %w", err)
	}
	return nil
}
