package outbound_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"k8s.io/klog/v2"
	"sigs.k8s.io/apiserver-network-proxy/konnectivity-client/proto/client"
	"sigs.k8s.io/apiserver-network-proxy/pkg/agent"
	"sigs.k8s.io/apiserver-network-proxy/pkg/server"
	"sigs.k8s.io/apiserver-network-proxy/pkg/server/proxystrategies"
	agentproto "sigs.k8s.io/apiserver-network-proxy/proto/agent"

	"varco.dev/internal/apiserverproxy/outbound"
	"varco.dev/internal/apiserverproxy/outbound/egress"
)

// konnectivity starts konnectivity's own server with one agent, and returns the server.
func konnectivity(t *testing.T) *server.ProxyServer {
	t.Helper()
	klog.SetSlogLogger(slog.New(slog.DiscardHandler))
	s := server.NewProxyServer("server", []proxystrategies.ProxyStrategy{proxystrategies.ProxyStrategyDefault}, 1, &server.AgentTokenAuthenticationOptions{}, 10)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	agents := grpc.NewServer()
	agentproto.RegisterAgentServiceServer(agents, s)
	go agents.Serve(l)
	t.Cleanup(agents.Stop)

	stop := make(chan struct{})
	config := agent.ClientSetConfig{
		Address: l.Addr().String(), AgentID: "agent", SyncInterval: 100 * time.Millisecond, SyncIntervalCap: time.Second, ProbeInterval: time.Second,
		DialOptions: []grpc.DialOption{grpc.WithTransportCredentials(insecure.NewCredentials())}, XfrChannelSize: 10,
	}
	clients := config.NewAgentClientSet(make(chan struct{}), stop)
	clients.SetServerCounter(agent.NewResponseBasedCounter(clients))
	clients.Serve()
	t.Cleanup(func() { close(stop) })
	until(t, "the agent is there", func() bool { return clients.HealthyClientsCount() == 1 && s.BackendManagers[0].NumBackends() == 1 })
	return s
}

// listening are ways to be konnectivity's server for an API server; each returns the connection part of the configuration.
func listening(t *testing.T, s *server.ProxyServer) map[string]string {
	t.Helper()
	dir := t.TempDir()
	open := func(network, address string) net.Listener {
		l, err := net.Listen(network, address)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { l.Close() })
		return l
	}
	socket := func(name string) string { return filepath.Join(dir, name) }

	front := grpc.NewServer()
	client.RegisterProxyServiceServer(front, s)
	go front.Serve(open("unix", socket("grpc")))
	t.Cleanup(front.Stop)

	ours := newAuthority(t, "ours")
	cert, key := ours.issue("apiserver")
	roots := x509.NewCertPool()
	roots.AddCert(ours.cert)
	config := &tls.Config{Certificates: []tls.Certificate{ours.pair("konnectivity", "127.0.0.1")}, ClientCAs: roots, ClientAuth: tls.RequireAndVerifyClientCert}
	tcp := open("tcp", "127.0.0.1:0")
	tunnel := &http.Server{Handler: &server.Tunnel{Server: s}}
	go tunnel.Serve(open("unix", socket("http")))
	go tunnel.Serve(tls.NewListener(tcp, config))
	t.Cleanup(func() { tunnel.Close() })
	return map[string]string{
		"gRPC":           fmt.Sprintf("{proxyProtocol: GRPC, transport: {uds: {udsName: %s}}}", socket("grpc")),
		"HTTP":           fmt.Sprintf("{proxyProtocol: HTTPConnect, transport: {uds: {udsName: %s}}}", socket("http")),
		"HTTP, with TLS": fmt.Sprintf("{proxyProtocol: HTTPConnect, transport: {tcp: {url: 'https://%s', tlsConfig: {caBundle: %s, clientCert: %s, clientKey: %s}}}}", tcp.Addr(), put(t, dir, "ca", ours.pem), put(t, dir, "crt", cert), put(t, dir, "key", key)),
	}
}

// TestKonnectivity sends all kinds of exchanges through konnectivity's own server and agent, as a configuration file of
// kube-apiserver says.
func TestKonnectivity(t *testing.T) {
	dns, resolver := newNames(t)
	dns.set("node.test", "127.0.0.1")
	echo := func(w http.ResponseWriter, r *http.Request) {
		http.NewResponseController(w).EnableFullDuplex()
		io.Copy(w, r.Body)
	}
	servers := map[string]*target{"http": newTarget(t, echo, plain), "https": newTarget(t, echo, withHTTP2), "h2c": newTarget(t, echo, withH2C)}
	parrots := newTarget(t, parrot, withTLS)
	for name, connection := range listening(t, konnectivity(t)) {
		t.Run(name, func(t *testing.T) {
			file := put(t, t.TempDir(), "egress.yaml", "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n- name: cluster\n  connection: "+connection)
			dial, err := egress.Read(file)
			if err != nil {
				t.Fatal(err)
			}
			config := outbound.Config{Egress: dial, Resolver: resolver, IdleTimeout: patience, DialTimeout: 5 * time.Second}
			o := loose(t, config)
			big := strings.Repeat("0123456789abcdef", 1<<16) // 1 MiB
			for scheme, to := range servers {
				_, port, _ := net.SplitHostPort(to.Listener.Addr().String())
				for range 3 {
					got, err := send(o.RoundTripper(outbound.Profile{Scheme: scheme}), request(t, "POST", "http://node.test:"+port, big))
					if err != nil || got != big {
						t.Errorf("%s: %d bytes of %d, %v", scheme, len(got), len(big), err)
					}
				}
			}
			resp, err := o.Upgrade(outbound.Profile{Scheme: "https"}).RoundTrip(switching(t, parrots.URL))
			if err != nil {
				t.Fatal(err)
			}
			fmt.Fprintln(resp.Body.(io.Writer), "hello")
			heard := make([]byte, len("HTTP/1.1\nhello\nhello\n"))
			if _, err := io.ReadFull(resp.Body, heard); err != nil || !bytes.HasSuffix(heard, []byte("hello\nhello\n")) {
				t.Errorf("heard %q, %v", heard, err)
			}
			resp.Body.Close()
			checkRefusals(t, config, servers["http"])
		})
	}
}

// checkRefusals asks for what the guard refuses, and for what does not exist.
func checkRefusals(t *testing.T, config outbound.Config, server *target) {
	t.Helper()
	before, _ := server.connections()
	var refused *outbound.RefusedError
	if _, err := send(strict(t, config).RoundTripper(outbound.Profile{Scheme: "http"}), request(t, "GET", server.URL, "")); !errors.As(err, &refused) {
		t.Errorf("got %v, want it refused", err)
	}
	if after, _ := server.connections(); after != before {
		t.Error("a refused address was dialled")
	}
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close() // nobody is there any more
	_, err = send(loose(t, config).RoundTripper(outbound.Profile{Scheme: "http"}), request(t, "GET", "http://"+l.Addr().String(), ""))
	var op *net.OpError
	if !errors.As(err, &op) || op.Op != "dial" || errors.As(err, &refused) {
		t.Errorf("nobody there: %v", err)
	}
}
