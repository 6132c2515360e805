//go:build linux

package cli_test

import (
	"context"
	"crypto/tls"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	certutil "k8s.io/client-go/util/cert"

	"varco.dev/internal/nettest"
)

// startMounted starts a balancer of mode https over an API server that has nothing, with the apiserver proxy in it.
func startMounted(t *testing.T) running {
	t.Helper()
	dir, kubeconfig := t.TempDir(), startAPIServer(t)
	api, err := clientcmd.BuildConfigFromFlags("", kubeconfig)
	if err != nil {
		t.Fatal(err)
	}
	cert, key, err := certutil.GenerateSelfSignedCertKey("127.0.0.1", nil, nil)
	if err != nil {
		t.Fatal(err)
	}
	at, metrics := fmt.Sprintf("127.0.0.1:%d", freePort(t)), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	file := func(name string, content []byte) string {
		name = filepath.Join(dir, name)
		if err := os.WriteFile(name, content, 0o600); err != nil {
			t.Fatal(err)
		}
		return name
	}
	config := file("lb.yaml", fmt.Appendf(nil, `apiVersion: apiserverlb.varco.dev/v1alpha1
kind: APIServerLBConfiguration
listeners: [{address: %q, mode: https, tls: {certFile: %s, keyFile: %s}}]
backends: {static: [%s]}
health: {caFile: %s}
https: {kubeconfig: %s, apiserverProxy: true}
metricsAddress: %s
drain: {timeout: 2s}
`, at, file("tls.crt", cert), file("tls.key", key), strings.TrimPrefix(api.Host, "https://"), file("ca.crt", api.CAData), kubeconfig, metrics))
	ctx, cancel := context.WithCancel(t.Context())
	said, ended := &nettest.Journal{}, make(chan error, 1)
	cmd := varco(ctx, "apiserver-lb", "--config", config)
	cmd.Stdout, cmd.Stderr = said, said
	go func() { ended <- cmd.Run() }()
	out := running{"https://" + at, "http://" + metrics, func() error { cancel(); return <-ended }}
	for deadline := time.Now().Add(20 * time.Second); ; time.Sleep(10 * time.Millisecond) { // a poll
		resp, err := http.Get(out.metrics + "/readyz")
		if err == nil {
			resp.Body.Close()
			if resp.StatusCode == http.StatusOK {
				return out
			}
		}
		if time.Now().After(deadline) {
			cancel()
			<-ended
			t.Fatalf("it is not ready: %v\n%s", err, said)
		}
	}
}

// TestAPIServerLBIsAPIServerProxyToo wants one process to be both: the proxy paths are served in it, for who may, and all else
// goes to an API server.
func TestAPIServerLBIsAPIServerProxyToo(t *testing.T) {
	s := startMounted(t)
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}, ForceAttemptHTTP2: true}} // of a certificate that was just made
	defer client.CloseIdleConnections()
	for _, row := range []struct {
		path, token string
		code        int
		body        string
	}{
		{"/version", "good", 200, "/version as Bearer good"},
		{"/version", "wrong", 200, "/version as Bearer wrong"}, // the API server is to tell
		{"/api/v1/namespaces/default/services/web:80/proxy/", "good", 404, `"message":"web: NotFound"`},
		{"/api/v1/namespaces/default/services/web/proxy/", "wrong", 401, "Unauthorized"},
		{"/api/v1/proxy/nodes/a", "good", 410, "/api/v1/nodes/a/proxy"},
	} {
		r, err := http.NewRequest(http.MethodGet, s.url+row.path, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+row.token)
		if code, body := fetch(t, client, r); code != row.code || !strings.Contains(body, row.body) {
			t.Errorf("%s with token %s: answer %d %s, want %d %s", row.path, row.token, code, body, row.code, row.body)
		}
	}
	if err := s.stop(); err != nil {
		t.Error(err)
	}
	if _, err := client.Get(s.url + "/version"); err == nil {
		t.Error("it serves after its end")
	}
}
