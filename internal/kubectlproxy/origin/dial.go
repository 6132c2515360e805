package origin

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	pfconst "k8s.io/apimachinery/pkg/util/portforward"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/transport/websocket"
	"k8s.io/streaming/pkg/httpstream"
	"k8s.io/streaming/pkg/httpstream/spdy"

	"varco.dev/internal/httpproxy"
)

// podName says which pod a tunnel ends in.
type podName struct{ Namespace, Pod string }

// dialPod opens pods/portforward: SPDY in a WebSocket, and plain SPDY where the API server does not take that, in
// kubectl's order and by its conditions (pkg/cmd/portforward). The second try also helps users whose role allows
// "create pods/portforward" but not "get", on API servers before 1.35. The error's cause is the API server's
// StatusError if it answered.
func dialPod(ctx context.Context, config *rest.Config, to podName) (io.ReadWriteCloser, error) {
	at, err := apiURL(config, "api", "v1", "namespaces", to.Namespace, "pods", to.Pod, "portforward")
	if err != nil {
		return nil, err
	}
	conn, err := dialWebSocket(ctx, config, at)
	var refused *httpstream.UpgradeFailureError
	if !errors.As(err, &refused) && !httpstream.IsHTTPSProxyError(err) {
		return conn, err
	}
	return dialSPDY(ctx, config, at)
}

// apiURL joins the server of a kubeconfig, its path included, and further path elements.
func apiURL(config *rest.Config, elements ...string) (*url.URL, error) {
	base, _, err := rest.DefaultServerUrlFor(config)
	if err != nil {
		return nil, fmt.Errorf("reading the API server's URL: %w", err)
	}
	return base.JoinPath(elements...), nil
}

func dialWebSocket(ctx context.Context, config *rest.Config, at *url.URL) (io.ReadWriteCloser, error) {
	transport, holder, err := websocket.RoundTripperFor(config)
	if err != nil {
		return nil, fmt.Errorf("preparing a WebSocket to the API server: %w", err)
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, at.String(), nil)
	if err != nil {
		return nil, err
	}
	conn, err := websocket.Negotiate(transport, holder, req, pfconst.WebsocketsSPDYTunnelingPortForwardV1)
	if err != nil {
		return nil, err
	}
	return portforward.NewTunnelingConnection("origin", conn), nil
}

// dialSPDY upgrades by net/http, whose answer to 101 is the connection itself. client-go's own way hides it behind a
// type without pings and with a wait for each stream.
func dialSPDY(ctx context.Context, config *rest.Config, at *url.URL) (io.ReadWriteCloser, error) {
	transport, wrapped, err := upgradeTransport(config)
	if err != nil {
		return nil, fmt.Errorf("preparing SPDY to the API server: %w", err)
	}
	defer transport.CloseIdleConnections()
	req, err := http.NewRequestWithContext(ctx, http.MethodPost, at.String(), nil)
	if err != nil {
		return nil, err
	}
	req.Header.Set(httpstream.HeaderConnection, httpstream.HeaderUpgrade)
	req.Header.Set(httpstream.HeaderUpgrade, spdy.HeaderSpdy31)
	req.Header.Set(httpstream.HeaderProtocolVersion, pfconst.PortForwardV1Name)
	resp, err := wrapped.RoundTrip(req)
	if err != nil {
		return nil, err
	}
	return upgraded(resp)
}

// upgradeTransport speaks HTTP/1.1, since SPDY replaces the connection, with the kubeconfig's TLS, proxy and
// credentials.
func upgradeTransport(config *rest.Config) (*http.Transport, http.RoundTripper, error) {
	tlsConfig, err := rest.TLSConfigFor(config)
	if err != nil {
		return nil, nil, err
	}
	transport := &http.Transport{TLSClientConfig: tlsConfig, Proxy: config.Proxy, DialContext: config.Dial}
	if transport.Proxy == nil {
		transport.Proxy = http.ProxyFromEnvironment
	}
	transport.Protocols = new(http.Protocols)
	transport.Protocols.SetHTTP1(true)
	wrapped, err := rest.HTTPWrappersForConfig(config, transport)
	return transport, wrapped, err
}

// maxRefusal is how much of the API server's words about a refused upgrade is read.
const maxRefusal = 64 << 10

// maxQuoted is how much of words that are no Status is passed on.
const maxQuoted = 200

func upgraded(resp *http.Response) (io.ReadWriteCloser, error) {
	body, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode == http.StatusSwitchingProtocols && ok {
		return upgradedConn{body, bufio.NewReaderSize(body, frameBytes)}, nil
	}
	defer resp.Body.Close()
	text, _ := io.ReadAll(io.LimitReader(resp.Body, maxRefusal))
	return nil, statusError(resp.StatusCode, text)
}

// statusError is the API server's Status, or one made of what stands in for it.
func statusError(code int, text []byte) error {
	var status metav1.Status
	if err := json.Unmarshal(text, &status); err == nil && status.Status == metav1.StatusFailure {
		status.Code = int32(code)
		return &apierrors.StatusError{ErrStatus: status}
	}
	said := strings.Join(strings.Fields(string(text[:min(len(text), maxQuoted)])), " ")
	return httpproxy.Status(code, "", fmt.Sprintf("the API server, or something in front of it, answered %d: %s", code, said))
}

// upgradedConn is a connection that net/http handed over. SPDY frames have small headers, so reads are buffered.
type upgradedConn struct {
	io.ReadWriteCloser
	buffered *bufio.Reader
}

func (c upgradedConn) Read(p []byte) (int, error) { return c.buffered.Read(p) }
