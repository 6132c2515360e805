package controlplane

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strings"
	"time"
)

// Dial connects from the machine of a component; nettest.Namespace.DialContext is one.
type Dial func(ctx context.Context, network, address string) (net.Conn, error)

// Probe asks one component whether it is ready.
type Probe struct {
	url    string
	client *http.Client
}

// NewProbe returns a probe of the component; it reads the component's files.
func NewProbe(c Component, dial Dial) (*Probe, error) {
	ca, err := os.ReadFile(c.CA)
	if err != nil {
		return nil, fmt.Errorf("read authority of %s: %w", c.Name, err)
	}
	conf := &tls.Config{RootCAs: x509.NewCertPool()}
	conf.RootCAs.AppendCertsFromPEM(ca)
	if c.Cert != "" {
		pair, err := tls.LoadX509KeyPair(c.Cert, c.Key)
		if err != nil {
			return nil, fmt.Errorf("read client certificate for %s: %w", c.Name, err)
		}
		conf.Certificates = []tls.Certificate{pair}
	}
	transport := &http.Transport{TLSClientConfig: conf, DialContext: dial, DisableKeepAlives: true}
	return &Probe{url: c.Ready, client: &http.Client{Transport: transport, Timeout: 5 * time.Second}}, nil
}

// Check returns nil if the component is ready, else why it is not.
func (p *Probe) Check(ctx context.Context) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, p.url, nil)
	if err != nil {
		return err
	}
	resp, err := p.client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	if resp.StatusCode == http.StatusOK {
		return nil
	}
	body, _ := io.ReadAll(io.LimitReader(resp.Body, 4096))
	return fmt.Errorf("%s answers %s: %s", p.url, resp.Status, failedChecks(string(body)))
}

// failedChecks keeps of the answer of a health check the lines of the checks that failed, "[-]NAME failed: …".
func failedChecks(body string) string {
	var failed []string
	for line := range strings.Lines(body) {
		if strings.HasPrefix(line, "[-]") {
			failed = append(failed, strings.TrimSpace(line))
		}
	}
	if len(failed) == 0 {
		return strings.TrimSpace(body)
	}
	return strings.Join(failed, ", ")
}
