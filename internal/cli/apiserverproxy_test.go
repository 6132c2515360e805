//go:build linux

package cli_test

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"k8s.io/client-go/tools/clientcmd"
	clientcmdapi "k8s.io/client-go/tools/clientcmd/api"

	"varco.dev/internal/cli"
	"varco.dev/internal/nettest"
)

// startAPIServer starts one that has no objects, takes "good" for alice's token, and says who asked for anything else.
func startAPIServer(t *testing.T) (kubeconfig string) {
	t.Helper()
	s := httptest.NewTLSServer(http.HandlerFunc(answerAsAPIServer))
	t.Cleanup(s.Close)
	config := clientcmdapi.NewConfig()
	config.Clusters["c"] = &clientcmdapi.Cluster{Server: s.URL, CertificateAuthorityData: pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: s.Certificate().Raw})}
	config.AuthInfos["u"] = &clientcmdapi.AuthInfo{Token: "own"}
	config.Contexts["c"] = &clientcmdapi.Context{Cluster: "c", AuthInfo: "u"}
	config.CurrentContext = "c"
	kubeconfig = filepath.Join(t.TempDir(), "kubeconfig")
	if err := clientcmd.WriteToFile(*config, kubeconfig); err != nil {
		t.Fatal(err)
	}
	return kubeconfig
}

func answerAsAPIServer(w http.ResponseWriter, r *http.Request) {
	last := r.URL.Path[strings.LastIndexByte(r.URL.Path, '/')+1:]
	w.Header().Set("Content-Type", "application/json")
	status := func(code int, reason string) {
		w.WriteHeader(code)
		fmt.Fprintf(w, `{"kind":"Status","apiVersion":"v1","status":"Failure","message":%q,"reason":%q,"code":%d}`, last+": "+reason, reason, code)
	}
	switch {
	case strings.HasSuffix(last, "reviews"):
		var review map[string]any
		_ = json.NewDecoder(r.Body).Decode(&review) // what comes is not what is tested
		review["status"] = map[string]any{"allowed": true}
		if last == "tokenreviews" {
			review["status"] = map[string]any{"authenticated": review["spec"].(map[string]any)["token"] == "good", "user": map[string]any{"username": "alice"}}
		}
		_ = json.NewEncoder(w).Encode(review)
	case r.URL.Query().Has("sendInitialEvents"):
		status(http.StatusBadRequest, "BadRequest")
	case r.URL.Query().Has("watch"):
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	case last == "services", last == "pods", last == "nodes":
		_, _ = io.WriteString(w, `{"kind":"List","apiVersion":"v1","metadata":{"resourceVersion":"1"},"items":[]}`)
	case last == "endpointslices":
		_, _ = io.WriteString(w, `{"kind":"EndpointSliceList","apiVersion":"discovery.k8s.io/v1","metadata":{"resourceVersion":"1"},"items":[]}`)
	case strings.HasPrefix(r.URL.Path, "/api/"):
		status(http.StatusNotFound, "NotFound")
	default:
		fmt.Fprintf(w, "%s as %s", r.URL.Path, r.Header.Get("Authorization"))
	}
}

// asVarco in the environment has this test binary be varco.
const asVarco = "VARCO_TEST_AS_VARCO"

func TestMain(m *testing.M) {
	if os.Getenv(asVarco) == "" {
		os.Exit(m.Run())
	}
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM)
	err := cli.Root().ExecuteContext(ctx)
	stop()
	if err != nil {
		fmt.Fprintln(os.Stderr, "varco:", err)
		os.Exit(1)
	}
}

// varco is the command line in a process of its own. What watches the API server leaves goroutines behind for a moment
// (client-go's pager), which read the log that the next command in the same process would set. When the context ends, the
// process is asked to end.
func varco(ctx context.Context, args ...string) *exec.Cmd {
	cmd := exec.CommandContext(ctx, os.Args[0], args...)
	cmd.Env = append(os.Environ(), asVarco+"=1")
	cmd.Cancel = func() error {
		_ = cmd.Process.Signal(syscall.SIGTERM)
		return os.ErrProcessDone // how it ends is its own answer
	}
	cmd.WaitDelay = 20 * time.Second
	return cmd
}

func freePort(t *testing.T) int {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func TestAPIServerProxyBadFlags(t *testing.T) {
	t.Setenv("KUBERNETES_SERVICE_HOST", "")
	good := "--kubeconfig " + startAPIServer(t)
	nonsense := filepath.Join(t.TempDir(), "nonsense")
	if err := os.WriteFile(nonsense, []byte("nonsense"), 0o600); err != nil {
		t.Fatal(err)
	}
	taken, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer taken.Close()
	metrics := " --metrics-address= --bind-address=127.0.0.1 --secure-port=" + fmt.Sprint(freePort(t))
	for _, c := range []struct {
		args, want string
		front      bool // no flag of aggregated
	}{
		{args: "", want: "find the API server (give --kubeconfig, or run in a pod)"},
		{args: "--kubeconfig /nonexistent", want: "--kubeconfig: stat /nonexistent: no such file"},
		{args: "--kubeconfig " + nonsense, want: "--kubeconfig: "},
		{args: good + " --allow-cidr 10.0.0.0/8,here", want: `--allow-cidr: "here" is no network`},
		{args: good + " --deny-cidr 10.0.0.0/33", want: `--deny-cidr: "10.0.0.0/33" is no network`},
		{args: good + " --secure-port 0", want: "--secure-port must not be 0"},
		{args: good + " --secure-port 70000", want: "--secure-port 70000 must be between 1 and 65535"},
		{args: good + " --max-tries 0", want: "--max-tries: 0 is less than one"},
		{args: good + " --logging-format xml", want: `--logging-format: "xml" is none of text, json`},
		{args: good + " --drain-timeout=-1s", want: "--drain-timeout -1s is below 0"},
		{args: good + " --target-idle-timeout=-1s", want: "check the timeouts: one is negative"},
		{args: good + " --tls-cert-file x", want: "--tls-cert-file and --tls-private-key-file belong together"},
		{args: good + " --tls-cert-file /nonexistent --tls-private-key-file /nonexistent" + metrics, want: "--tls-cert-file and --tls-private-key-file: open /nonexistent: no such file"},
		{args: good + " --tls-cert-file " + nonsense + " --tls-private-key-file " + nonsense + metrics, want: "--tls-cert-file and --tls-private-key-file: tls: failed to find any PEM data"},
		{args: good + " --tls-min-version 9" + metrics, want: "--tls-min-version: unknown tls version"},
		{args: good + " --client-ca-file /nonexistent" + metrics, want: "--client-ca-file: open /nonexistent: no such file"},
		{args: good + " --client-ca-file " + nonsense + metrics, want: "holds no certificate in PEM"},
		{args: good + " --kubelet-client-certificate x", want: "a certificate needs a key"},
		{args: good + " --kubelet-token-file " + nonsense, want: "it needs a certificate authority"},
		{args: good + " --backend-ca-file " + nonsense, want: "it holds no certificate in PEM"},
		{args: good + " --egress-selector-config-file /nonexistent", want: "--egress-selector-config-file: "},
		{args: good + " --audit-policy-file /nonexistent --audit-log-path -", want: "prepare the audit log: "},
		{args: good + " --metrics-address " + taken.Addr().String() + " --secure-port " + fmt.Sprint(freePort(t)), want: "address already in use"},
		{args: good + " --metrics-address= --bind-address=127.0.0.1 --secure-port " + fmt.Sprint(taken.Addr().(*net.TCPAddr).Port), want: "--bind-address and --secure-port: "},
		{args: good + " --proxy-client-cert-file x", want: "--proxy-client-cert-file and --proxy-client-key-file belong together", front: true},
		{args: good + " --proxy-client-cert-file /nonexistent --proxy-client-key-file /nonexistent" + metrics, want: "read the front-proxy certificate: open /nonexistent: no such file", front: true},
		{args: good + " --insecure-loopback-port 70000", want: "--insecure-loopback-port 70000 is no port", front: true},
		{args: "surplus", want: "unknown command"},
		{args: "--no-such-flag", want: "unknown flag"},
	} {
		for _, way := range []string{"front", "aggregated"} {
			if c.front && way != "front" {
				continue
			}
			ctx, cancel := context.WithTimeout(t.Context(), 20*time.Second)
			said, err := varco(ctx, append([]string{"apiserver-proxy", way}, strings.Fields(c.args)...)...).CombinedOutput()
			if err == nil || ctx.Err() != nil || !strings.Contains(string(said), c.want) {
				t.Errorf("varco apiserver-proxy %s %s: got error %v, want %q in:\n%s", way, c.args, err, c.want, said)
			}
			cancel()
		}
	}
}

// running is a command that serves.
type running struct {
	url, metrics string
	stop         func() error
}

func startAPIServerProxy(t *testing.T, way string) running {
	t.Helper()
	secure, metrics := freePort(t), fmt.Sprintf("127.0.0.1:%d", freePort(t))
	ctx, cancel := context.WithCancel(t.Context())
	said, ended := &nettest.Journal{}, make(chan error, 1)
	cmd := varco(ctx, "apiserver-proxy", way, "--kubeconfig="+startAPIServer(t), "--bind-address=127.0.0.1", fmt.Sprintf("--secure-port=%d", secure), "--metrics_address="+metrics)
	cmd.Stdout, cmd.Stderr = said, said
	go func() { ended <- cmd.Run() }()
	out := running{fmt.Sprintf("https://127.0.0.1:%d", secure), "http://" + metrics, func() error { cancel(); return <-ended }}
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
			t.Fatalf("it is not ready: %v\n%s", err, said)
		}
	}
}

// TestAPIServerProxyServes starts both servers at an API server that has nothing, and ends them.
func TestAPIServerProxyServes(t *testing.T) {
	client := &http.Client{Transport: &http.Transport{TLSClientConfig: &tls.Config{InsecureSkipVerify: true}}} // of a certificate that was just made
	defer client.CloseIdleConnections()
	type row struct {
		path, token string
		code        int
		body        string
	}
	for way, rows := range map[string][]row{
		"front": {
			{"/version", "good", 200, "/version as Bearer good"},
			{"/version", "wrong", 200, "/version as Bearer wrong"}, // the API server is to tell
			{"/api/v1/namespaces/default/services/web:80/proxy/", "good", 404, `"message":"web: NotFound"`},
			{"/api/v1/namespaces/default/services/web/proxy/", "wrong", 401, "Unauthorized"},
			{"/api/v1/proxy/nodes/a", "good", 410, "/api/v1/nodes/a/proxy"},
		},
		"aggregated": {
			{"/apis/proxy.varco.dev/v1", "good", 200, `"services/proxy"`},
			{"/apis/proxy.varco.dev/v1/namespaces/default/services/web:80/proxy/", "good", 404, `"message":"web: NotFound"`},
			{"/apis/proxy.varco.dev/v1/namespaces/default/services/web/proxy/", "wrong", 401, "Unauthorized"},
			{"/api/v1/namespaces/default/services/web/proxy/", "good", 404, ""},
			{"/version", "good", 404, ""},
		},
	} {
		t.Run(way, func(t *testing.T) {
			s := startAPIServerProxy(t, way)
			for _, row := range rows {
				r, err := http.NewRequest(http.MethodGet, s.url+row.path, nil)
				if err != nil {
					t.Fatal(err)
				}
				r.Header.Set("Authorization", "Bearer "+row.token)
				if code, body := fetch(t, client, r); code != row.code || !strings.Contains(body, row.body) {
					t.Errorf("%s with token %s: answer %d %s, want %d %s", row.path, row.token, code, body, row.code, row.body)
				}
			}
			r, err := http.NewRequest(http.MethodGet, s.metrics+"/metrics", nil)
			if err != nil {
				t.Fatal(err)
			}
			if code, body := fetch(t, http.DefaultClient, r); code != 200 || !strings.Contains(body, "kubernetes_build_info") || !strings.Contains(body, "authentication_attempts") || !strings.Contains(body, "varco_apiserver_proxy_endpoint_tries_total") {
				t.Errorf("metrics: answer %d %s", code, body)
			}
			if err := s.stop(); err != nil {
				t.Error(err)
			}
			if _, err := client.Get(s.url + "/version"); err == nil {
				t.Error("it serves after its end")
			}
		})
	}
}

func fetch(t *testing.T, c *http.Client, r *http.Request) (code int, body string) {
	t.Helper()
	resp, err := c.Do(r)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	content, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(content)
}
