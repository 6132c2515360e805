package cluster_test

import (
	"context"
	"io"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"varco.dev/internal/kubectlproxy/cluster"
	"varco.dev/internal/nettest"
)

// stage is a kubeconfig, and the clusters that are read from it.
type stage struct {
	t        *testing.T
	dir      string
	path     string // of the kubeconfig
	file     *clientcmdapi.Config
	log      *nettest.Journal
	config   cluster.Config
	clusters *cluster.Clusters
}

// newStage has one context, "main", whose server is a and whose user is the given one.
func newStage(t *testing.T, a *api, user *clientcmdapi.AuthInfo, change ...func(*stage)) *stage {
	s := &stage{t: t, dir: t.TempDir(), file: clientcmdapi.NewConfig(), log: &nettest.Journal{}}
	s.path = filepath.Join(s.dir, "config")
	s.add("main", a, user)
	s.file.CurrentContext = "main"
	s.config = cluster.Config{
		Load: func(context string) clientcmd.ClientConfig {
			return clientcmd.NewNonInteractiveDeferredLoadingClientConfig(
				&clientcmd.ClientConfigLoadingRules{ExplicitPath: s.path}, &clientcmd.ConfigOverrides{CurrentContext: context})
		},
		Files:      func() []string { return []string{s.path} },
		ServerPath: true,
		Log:        slog.New(slog.NewTextHandler(s.log, &slog.HandlerOptions{Level: slog.LevelDebug})),
	}
	for _, f := range change {
		f(s)
	}
	s.save()
	s.clusters = cluster.New(s.config)
	return s
}

// add writes one more context, with a cluster and a user of the same name.
func (s *stage) add(name string, a *api, user *clientcmdapi.AuthInfo) *clientcmdapi.Cluster {
	c := &clientcmdapi.Cluster{Server: a.URL, CertificateAuthorityData: a.authority()}
	s.file.Clusters[name], s.file.AuthInfos[name] = c, user
	s.file.Contexts[name] = &clientcmdapi.Context{Cluster: name, AuthInfo: name}
	return c
}

func (s *stage) save() {
	s.t.Helper()
	if err := clientcmd.WriteToFile(*s.file, s.path); err != nil {
		s.t.Fatal(err)
	}
}

// run follows the kubeconfig until the test ends.
func (s *stage) run() {
	ctx, cancel := context.WithCancel(context.Background())
	ended := make(chan error)
	go func() { ended <- s.clusters.Run(ctx) }()
	s.t.Cleanup(func() {
		cancel()
		if err := <-ended; err != nil {
			s.t.Errorf("Run ended with %v", err)
		}
	})
}

// until waits for something that the followed file brings about.
func (s *stage) until(what string, ok func() bool) {
	s.t.Helper()
	for end := time.Now().Add(20 * time.Second); !ok(); {
		if time.Now().After(end) {
			s.t.Fatalf("%s: not within 20 s; log:\n%s", what, s.log)
		}
		time.Sleep(20 * time.Millisecond) // files are looked at by the clock, once a second
	}
}

func (s *stage) get(context string) *cluster.Cluster {
	s.t.Helper()
	c, err := s.clusters.Get(context)
	if err != nil {
		s.t.Fatal(err)
	}
	return c
}

// ask sends a request as the proxy does, and returns the answer.
func ask(t *testing.T, c *cluster.Cluster, r *http.Request, long bool) (*http.Response, error) {
	t.Helper()
	target, err := c.Target(r, long)
	if err != nil {
		return nil, err
	}
	out := r.Clone(t.Context())
	out.RequestURI = ""
	out.URL.Scheme, out.URL.Host, out.Host = target.Scheme, target.Host, ""
	if target.Edit != nil {
		target.Edit(out)
	}
	rt := target.RoundTripper
	if r.Header.Get("Upgrade") != "" {
		rt = target.Upgrade
	}
	resp, err := rt.RoundTrip(out)
	if err != nil {
		return nil, err
	}
	if target.EditResponse != nil {
		if err := target.EditResponse(resp); err != nil {
			return nil, err
		}
	}
	return resp, nil
}

// answer is what a request brought: the code and the body, or the error.
func answer(t *testing.T, c *cluster.Cluster, r *http.Request) string {
	t.Helper()
	resp, err := ask(t, c, r, false)
	if err != nil {
		return "error: " + err.Error()
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return "error: " + err.Error()
	}
	return resp.Status[:3] + " " + string(body)
}

func get(path string) *http.Request { return httptest.NewRequest(http.MethodGet, path, nil) }

func post(path, body string) *http.Request {
	return httptest.NewRequest(http.MethodPost, path, strings.NewReader(body))
}

// upgradeRequest asks for the protocol echo.
func upgradeRequest(path string) *http.Request {
	r := get(path)
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "echo")
	return r
}

// echo opens an upgraded connection; say sends a line over it and returns the answer.
func echo(t *testing.T, c *cluster.Cluster) (say func(string) string) {
	t.Helper()
	resp, err := ask(t, c, upgradeRequest("/exec"), false)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	stream, ok := resp.Body.(io.ReadWriteCloser)
	if resp.StatusCode != http.StatusSwitchingProtocols || !ok {
		t.Fatalf("answer %s with a %T, want 101 with an io.ReadWriteCloser", resp.Status, resp.Body)
	}
	return func(word string) string {
		t.Helper()
		if _, err := io.WriteString(stream, word+"\n"); err != nil {
			t.Fatal(err)
		}
		return strings.TrimSpace(firstLine(t, stream))
	}
}
