package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	_ "embed"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/controlplane"
)

// FrontConfig says how to run varco apiserver-proxy, and where to show what it does.
type FrontConfig struct {
	Varco    string // the program
	Manifest string // path of the manifest of its service account
	PKI      string // folder of the lab's certificates
	// Host says that the lab's API servers have varco apiserver-proxy in their process too.
	Host bool
	// Pods is how many pods of the Deployment echo there shall be, for requests to spread over; 0: as many as there are.
	Pods int
	Out  io.Writer
}

// Addresses of varco apiserver-proxy on the first control plane, and bounds of what it may take.
const (
	frontPort    = 7443
	frontMetrics = "127.0.0.1:10262"
	frontAccount = "varco-apiserver-proxy"
	frontStart   = 20 * time.Second
	frontStop    = 10 * time.Second
)

//go:embed front.yaml
var frontManifest []byte

// front is a varco apiserver-proxy in front of the lab's API server, and a client of it outside the cluster.
type front struct {
	FrontConfig
	console *console
	client  kubernetes.Interface
	admin   *rest.Config
	outside *http.Client // the client outside, with the administrator's certificate
	host    *nettest.Namespace
	local   *http.Client // of the machine that the front runs on
	process *exec.Cmd
	log     bytes.Buffer // may be read when it has ended
	ended   chan struct{}
}

// ShowFront runs varco apiserver-proxy in front of the API server, on the first control plane, and shows how a client outside
// reaches nodes, pods and Services through it: what Show has deployed. It ends it again. The error is ErrFailed if
// something is not as it must be.
func ShowFront(ctx context.Context, lab Lab, cfg FrontConfig) error {
	f := &front{FrontConfig: cfg, console: newConsole(cfg.Out), ended: make(chan struct{})}
	client, err := lab.Namespace("client")
	if err != nil {
		return err
	}
	defer client.Close()
	if f.host, err = lab.Namespace("control-plane-0"); err != nil {
		return err
	}
	defer f.host.Close()
	f.local = &http.Client{Timeout: gatewayAsk, Transport: &http.Transport{DialContext: f.host.DialContext, DisableKeepAlives: true}}
	if f.admin, err = lab.RESTConfig(); err != nil {
		return err
	}
	if f.client, err = kubernetes.NewForConfig(f.admin); err != nil {
		return err
	}
	if f.outside, err = outsideClient(f.admin, client); err != nil {
		return err
	}
	defer f.outside.CloseIdleConnections()
	defer f.stop()
	err = f.console.step("apiserver-proxy", func() (string, error) {
		return "varco apiserver-proxy front serves at " + f.url(), f.start(ctx)
	})
	if err != nil {
		return err
	}
	return f.show(ctx)
}

func outsideClient(conf *rest.Config, from *nettest.Namespace) (*http.Client, error) {
	cert, err := tls.X509KeyPair(conf.CertData, conf.KeyData)
	if err != nil {
		return nil, fmt.Errorf("read the administrator's certificate: %w", err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(conf.CAData)
	return &http.Client{Timeout: gatewayAsk, Transport: &http.Transport{
		DialContext: from.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}},
		MaxIdleConnsPerHost: frontWorkers,
	}}, nil
}

// apiServer is the URL of the first API server for what runs in the lab.
func (f *front) apiServer() string {
	return controlplane.NewHost("", controlplane.FirstControlPlane).APIServer()
}

func (f *front) url() string {
	return strings.TrimSuffix(f.apiServer(), fmt.Sprint(controlplane.APIServerPort)) + fmt.Sprint(frontPort)
}

// start makes the service account and what is asked, and returns when the front serves.
func (f *front) start(ctx context.Context) error {
	for _, manifest := range []func() ([]byte, error){
		func() ([]byte, error) { return os.ReadFile(f.Manifest) },
		func() ([]byte, error) { return frontManifest, nil },
	} {
		text, err := manifest()
		if err == nil {
			err = Apply(ctx, f.admin, text)
		}
		if err != nil {
			return err
		}
	}
	if err := awaitPod(ctx, f.client, "deaf"); err != nil {
		return err
	}
	if f.Pods > 0 {
		if err := (&rolling{client: f.client}).scale(ctx, f.Pods); err != nil {
			return err
		}
	}
	if err := f.slice(ctx); err != nil {
		return err
	}
	kubeconfig, err := f.kubeconfig(ctx)
	if err != nil {
		return err
	}
	defer os.Remove(kubeconfig) // it has been read when the front serves
	if err := f.run(kubeconfig); err != nil {
		return fmt.Errorf("start varco apiserver-proxy: %w", err)
	}
	return f.await(ctx)
}

// slice makes the endpoints of Service limping: the pods of echo and one that listens at another port.
func (f *front) slice(ctx context.Context) error {
	pods, err := podsOf(ctx, f.client, "echo")
	if err != nil {
		return err
	}
	deaf, err := podsOf(ctx, f.client, "deaf")
	if err != nil {
		return err
	}
	port, name, ready := int32(8080), "http", true
	s := &discoveryv1.EndpointSlice{
		ObjectMeta:  metav1.ObjectMeta{Name: "limping-1", Labels: map[string]string{discoveryv1.LabelServiceName: "limping"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports:       []discoveryv1.EndpointPort{{Name: &name, Port: &port}},
	}
	for _, p := range append(deaf, pods...) {
		if p.DeletionTimestamp == nil {
			s.Endpoints = append(s.Endpoints, discoveryv1.Endpoint{
				Addresses: []string{p.Status.PodIP}, Conditions: discoveryv1.EndpointConditions{Ready: &ready},
				TargetRef: &corev1.ObjectReference{Kind: "Pod", Namespace: p.Namespace, Name: p.Name, UID: p.UID},
			})
		}
	}
	_, err = f.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).Create(ctx, s, metav1.CreateOptions{})
	return err
}

// kubeconfig writes one with a token of the front's service account, and returns its path.
func (f *front) kubeconfig(ctx context.Context) (string, error) {
	token, err := f.client.CoreV1().ServiceAccounts(metav1.NamespaceSystem).
		CreateToken(ctx, frontAccount, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		return "", fmt.Errorf("ask for a token of the front: %w", err)
	}
	c := api.NewConfig()
	c.Clusters[frontAccount] = &api.Cluster{Server: f.apiServer(), CertificateAuthorityData: f.admin.CAData}
	c.AuthInfos[frontAccount] = &api.AuthInfo{Token: token.Status.Token}
	c.Contexts[frontAccount] = &api.Context{Cluster: frontAccount, AuthInfo: frontAccount}
	c.CurrentContext = frontAccount
	file, err := os.CreateTemp("", "varco-lab-*.kubeconfig")
	if err != nil {
		return "", err
	}
	file.Close()
	return file.Name(), clientcmd.WriteToFile(*c, file.Name())
}

// run starts the process on the control plane; it ends with this one.
func (f *front) run(kubeconfig string) error {
	pki := func(name string) string { return filepath.Join(f.PKI, name) }
	cmd := exec.Command(f.Varco, "apiserver-proxy", "front", "--kubeconfig="+kubeconfig,
		fmt.Sprintf("--secure-port=%d", frontPort), "--metrics-address="+frontMetrics,
		"--tls-cert-file="+pki("apiserver.crt"), "--tls-private-key-file="+pki("apiserver.key"),
		"--client-ca-file="+pki("ca.crt"),
		"--proxy-client-cert-file="+pki("front-proxy-client.crt"), "--proxy-client-key-file="+pki("front-proxy-client.key"),
		"--kubelet-client-certificate="+pki("apiserver-kubelet-client.crt"), "--kubelet-client-key="+pki("apiserver-kubelet-client.key"),
		"--kubelet-certificate-authority="+pki("ca.crt"), "--kubelet-preferred-address-types=InternalIP",
		"--allow-cidr="+nettest.ClientNet.V4.String())
	cmd.Stdout, cmd.Stderr = &f.log, &f.log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
	started := make(chan error, 1)
	go func() {
		defer close(f.ended)
		// The thread, whose death would be the process's, stays as long as that.
		err := f.host.Do(func() error {
			err := cmd.Start()
			started <- err
			if err == nil {
				_ = cmd.Wait() // what it says is in the log
			}
			return nil
		})
		if err != nil {
			started <- err
		}
	}()
	if err := <-started; err != nil {
		return err
	}
	f.process = cmd
	return nil
}

func (f *front) await(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, frontStart, fmt.Errorf("not ready within %s", frontStart))
	defer cancel()
	for {
		code, _, err := f.get(ctx, f.url()+"/readyz")
		if err == nil && code == http.StatusOK {
			return nil
		}
		select {
		case <-f.ended:
			return fmt.Errorf("varco apiserver-proxy ended: %s", strings.TrimSpace(f.log.String()))
		case <-ctx.Done():
			f.stop()
			return fmt.Errorf("varco apiserver-proxy: %w: %s", context.Cause(ctx), strings.TrimSpace(f.log.String()))
		case <-time.After(20 * time.Millisecond):
		}
	}
}

// stop ends the front; one that has ended, or never began, is fine.
func (f *front) stop() {
	if f.process == nil {
		return
	}
	_ = f.process.Process.Signal(syscall.SIGTERM) // it may have ended
	select {
	case <-f.ended:
	case <-time.After(frontStop):
		_ = f.process.Process.Kill()
		<-f.ended
	}
}

// get asks as the client outside and returns the status, and who answered.
func (f *front) get(ctx context.Context, url string) (code int, pod string, err error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return 0, "", err
	}
	resp, err := f.outside.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return resp.StatusCode, resp.Header.Get("X-Pod"), err
}

// show asks, and prints tables; the error is ErrFailed if something is wrong.
func (f *front) show(ctx context.Context) error {
	pods, err := podsOf(ctx, f.client, "echo")
	if err != nil {
		return err
	}
	var table strings.Builder
	w := tabwriter.NewWriter(&table, 0, 0, 2, ' ', 0)
	wrong := f.ways(ctx, w, pods[0].Name)
	if err := w.Flush(); err != nil {
		return err
	}
	f.console.line("\n%s", table.String())
	failed, err := f.spread(ctx)
	if err != nil {
		return err
	}
	if wrong+failed > 0 && ctx.Err() == nil {
		return ErrFailed
	}
	return ctx.Err()
}

// ways asks for a node, a pod and a Service, and prints a row for each; it returns how many are wrong.
func (f *front) ways(ctx context.Context, w io.Writer, pod string) (wrong int) {
	fmt.Fprintln(w, "FROM\tTO\tBY WAY OF\tPATH\tEXPECTED\tSEEN")
	ways := [][2]string{{"front", f.url()}}
	if f.Host {
		ways = append(ways, [2]string{"API server", f.apiServer()})
	}
	for _, way := range ways {
		for _, q := range []struct{ to, path, pod, want string }{
			{"node", "/api/v1/nodes/node-1/proxy/healthz", "", "200"},
			{"pod, port by name", "/api/v1/namespaces/default/pods/" + pod + ":http/proxy/", pod, "pod " + pod},
			{"Service", "/api/v1/namespaces/default/services/echo:http/proxy/", "echo-", "a pod of it"},
		} {
			code, seen, err := f.get(ctx, way[1]+q.path)
			text := fmt.Sprint(code)
			if seen != "" {
				text = "pod " + seen
			}
			if err != nil || code != http.StatusOK || !strings.HasPrefix(seen, q.pod) {
				text = fmt.Sprintf("✗ %s %v", text, err)
				wrong++
			}
			fmt.Fprintf(w, "client\t%s\t%s\t%s\t%s\t%s\n", q.to, way[0], q.path, q.want, text)
		}
	}
	return wrong
}
