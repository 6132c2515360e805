package main_test

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net/http"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"

	"varco.dev/internal/nettest"
	"varco.dev/lab/internal/cluster"
	"varco.dev/lab/internal/controlplane"
	"varco.dev/lab/internal/demo"
)

// apiProxies is a lab with the proxy subresources served in all ways: its first API server has varco apiserver-proxy in its
// process, its second one is as Kubernetes made it. The two other ways are processes on the first control plane that
// know the second API server alone.
type apiProxies struct {
	*lab
	kubectl string // path of the program
	client  *nettest.Namespace
	admin   *rest.Config // of the second API server, asked from the outside client

	original way
	ways     []way // varco's
}

// way is one way to ask for a proxy subresource.
type way struct {
	name string
	url  string // https://host:port
	base string // path that stands for /api/v1
}

// echoPods are the pods of Deployment echo, targetPods all that must be ready, as in the manifest.
const (
	echoPods   = 3
	targetPods = echoPods + 4
)

// Ports of the processes beside the first API server, on its machine.
const (
	frontPort      = 7443
	aggregatedPort = 8443
)

// Bases of the subresources' paths.
const (
	coreBase       = "/api/v1"
	aggregatedBase = "/apis/proxy.varco.dev/v1"
)

// apiServerProxy compares varco apiserver-proxy with the original in a lab of its own, and uses it as users do.
func (l *lab) apiServerProxy(t *testing.T) {
	p := l.apiProxies(t)
	for _, s := range []struct {
		name string
		test func(*testing.T)
	}{
		{"same as the original", p.sameAsOriginal},
		{"upgrades", p.upgrades},
		{"commands by way of a node", p.nodeCommands},
		{"gRPC", p.grpc},
		{"streamed", p.streamed},
		{"conformance", p.conformance},
		{"admission", p.admission},
		{"permissions", p.permissions},
		{"identities", p.identities},
		{"Services without selector", p.withoutSelector},
		{"disguised", p.disguised},
		{"affinity", p.affinity},
		{"certificates of targets", p.verified},
		{"strict upgrades", p.strict},
		{"metrics", p.counted},
		{"spread", p.spread},
		{"dead and going pods", p.deadPods},
		{"in front of the API server", p.throughFront},
		{"kubectl", p.kubectlThroughFront},
		{"API server away", p.apiServerAway},
	} {
		t.Run(s.name, s.test)
	}
}

// apiProxies starts the lab and what is in it.
func (l *lab) apiProxies(t *testing.T) *apiProxies {
	conf := l.conf
	conf.Dir, conf.APIServers, conf.APIServerProxy = conf.Dir+"2", 2, cluster.ProxyOfFirst
	conf.Images = append([]string{"porter=" + conf.Binary + ",porter"}, conf.Images...)
	p := &apiProxies{lab: bringUp(t, conf, l.varco), kubectl: filepath.Join(t.TempDir(), "kubectl")}
	build(t, filepath.Dir(p.kubectl), "../bench", "k8s.io/kubernetes/cmd/kubectl")
	p.client = p.open(t, "client")
	first, second := p.controlPlane(0), p.controlPlane(1)
	p.original = way{"original", second.APIServer(), coreBase}
	at := func(port uint16) string { return "https://" + netip.AddrPortFrom(first.Addrs[0], port).String() }
	p.ways = []way{
		{"in the process", first.APIServer(), coreBase},
		{"front", at(frontPort), coreBase},
		{"aggregated", p.original.url, aggregatedBase},
	}
	p.admin = p.configOf(t, p.original)
	p.deployTargets(t)
	p.startFront(t)
	p.startAggregated(t)
	for _, w := range p.ways {
		p.wait(t, w.name+" to serve", func() (string, bool) {
			a := p.ask(t, w, request{path: "namespaces/default/services/plain/proxy/healthz"})
			return a.String(), a.status == http.StatusOK
		})
	}
	return p
}

func (p *apiProxies) controlPlane(i int) controlplane.Host {
	return controlplane.NewHost(fmt.Sprintf("control-plane-%d", i), controlplane.FirstControlPlane+i)
}

// configOf is the administrator's configuration for a server, asked from the outside client. It has no limit of requests.
func (p *apiProxies) configOf(t *testing.T, w way) *rest.Config {
	t.Helper()
	conf, err := p.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	conf.Host, conf.Dial, conf.QPS = w.url, p.client.DialContext, -1
	return conf
}

// as is the configuration of a user without certificate.
func as(conf *rest.Config, token string) *rest.Config {
	conf = rest.AnonymousClientConfig(conf)
	conf.BearerToken, conf.QPS = token, -1
	return conf
}

func clientset(t *testing.T, conf *rest.Config) kubernetes.Interface {
	t.Helper()
	c, err := kubernetes.NewForConfig(conf)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// pki is the path of a file of the lab's certificates.
func (p *apiProxies) pki(name string) string { return filepath.Join(p.conf.Dir, "pki", name) }

// run runs varco apiserver-proxy on the first control plane, for the time of the test.
func (p *apiProxies) run(t *testing.T, ready string, args ...string) {
	t.Helper()
	var out bytes.Buffer
	cmd := exec.Command(p.varco, append([]string{"apiserver-proxy"}, args...)...)
	cmd.Stdout, cmd.Stderr = &out, &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL} // a test that is out of time cleans nothing up
	host := p.open(t, p.controlPlane(0).Name)
	started, ended := make(chan error, 1), make(chan error, 1)
	go func() {
		// The thread stays as long as the process, whose parent it is.
		_ = host.Do(func() error {
			err := cmd.Start()
			started <- err
			if err == nil {
				ended <- cmd.Wait()
			}
			return nil
		})
	}()
	if err := <-started; err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Signal(syscall.SIGTERM) // it may have ended
		select {
		case err := <-ended:
			if err != nil || t.Failed() {
				t.Errorf("varco apiserver-proxy %s: %v\n%s", args[0], err, &out)
			}
		case <-time.After(patience):
			_ = cmd.Process.Kill()
			t.Errorf("varco apiserver-proxy %s does not end: %v\n%s", args[0], <-ended, &out)
		}
	})
	hc := &http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DialContext: p.client.DialContext, TLSClientConfig: p.tls(t), DisableKeepAlives: true,
	}}
	p.wait(t, "varco apiserver-proxy "+args[0], func() (string, bool) {
		select {
		case err := <-ended:
			ended <- err
			t.Fatalf("varco apiserver-proxy %s ended: %v\n%s", args[0], err, &out)
		default:
		}
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, ready, nil)
		if err != nil {
			t.Fatal(err)
		}
		resp, err := hc.Do(req)
		if err != nil {
			return err.Error(), false
		}
		resp.Body.Close()
		return resp.Status, resp.StatusCode == http.StatusOK
	})
}

// tls trusts the lab's servers and shows the administrator's certificate.
func (p *apiProxies) tls(t *testing.T) *tls.Config {
	t.Helper()
	conf, err := p.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	cert, err := tls.X509KeyPair(conf.CertData, conf.KeyData)
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(conf.CAData)
	return &tls.Config{RootCAs: roots, Certificates: []tls.Certificate{cert}}
}

// common are the flags that both commands have: who they are, how they serve, and how they reach targets.
func (p *apiProxies) common(t *testing.T, port int) []string {
	return []string{
		"--kubeconfig=" + p.accountKubeconfig(t),
		fmt.Sprintf("--secure-port=%d", port),
		"--tls-cert-file=" + p.pki("apiserver.crt"),
		"--tls-private-key-file=" + p.pki("apiserver.key"),
		"--kubelet-client-certificate=" + p.pki("apiserver-kubelet-client.crt"),
		"--kubelet-client-key=" + p.pki("apiserver-kubelet-client.key"),
		"--kubelet-certificate-authority=" + p.pki("ca.crt"),
		"--kubelet-preferred-address-types=InternalIP",
		"--metrics-address=", // both are on one machine
		"--allow-cidr=" + nettest.ClientNet.V4.String(),
	}
}

func (p *apiProxies) startFront(t *testing.T) {
	p.run(t, p.ways[1].url+"/readyz", append([]string{"front",
		"--client-ca-file=" + p.pki("ca.crt"),
		"--proxy-client-cert-file=" + p.pki("front-proxy-client.crt"),
		"--proxy-client-key-file=" + p.pki("front-proxy-client.key"),
	}, p.common(t, frontPort)...)...)
}

func (p *apiProxies) startAggregated(t *testing.T) {
	address := p.controlPlane(0).Addrs[0]
	p.apply(t, "testdata/apiserverproxy-aggregated.yaml", "${ADDRESS}", address.String(), "${PORT}", fmt.Sprint(aggregatedPort))
	at := netip.AddrPortFrom(address, aggregatedPort)
	p.run(t, "https://"+at.String()+"/readyz", append([]string{"aggregated"}, p.common(t, aggregatedPort)...)...)
}

// accountKubeconfig is one of the service account that deploy/ has for varco apiserver-proxy, for the second API server.
func (p *apiProxies) accountKubeconfig(t *testing.T) string {
	t.Helper()
	return writeKubeconfig(t, as(p.admin, p.token(t, metav1.NamespaceSystem, "varco-apiserver-proxy")))
}

// writeKubeconfig writes the configuration of a client as a file; how it dials is not in it.
func writeKubeconfig(t *testing.T, conf *rest.Config) string {
	t.Helper()
	c, name, path := api.NewConfig(), "lab", filepath.Join(t.TempDir(), "kubeconfig")
	c.Clusters[name] = &api.Cluster{Server: conf.Host, CertificateAuthorityData: conf.CAData}
	c.AuthInfos[name] = &api.AuthInfo{Token: conf.BearerToken, ClientCertificateData: conf.CertData, ClientKeyData: conf.KeyData}
	c.Contexts[name] = &api.Context{Cluster: name, AuthInfo: name}
	c.CurrentContext = name
	if err := clientcmd.WriteToFile(*c, path); err != nil {
		t.Fatal(err)
	}
	return path
}

// apply applies one of the manifests, with pairs of old and new texts replaced in it.
func (p *apiProxies) apply(t *testing.T, manifest string, replace ...string) {
	t.Helper()
	text, err := os.ReadFile(manifest)
	if err == nil {
		err = demo.Apply(t.Context(), p.admin, []byte(strings.NewReplacer(replace...).Replace(string(text))))
	}
	if err != nil {
		t.Fatal(err)
	}
}

// deployTargets makes the pods and Services that are asked, and waits until they serve.
func (p *apiProxies) deployTargets(t *testing.T) {
	p.apply(t, "../deploy/apiserver-proxy-rbac.yaml")
	p.apply(t, "testdata/apiserverproxy-targets.yaml")
	pods := p.lab.client.CoreV1().Pods(metav1.NamespaceDefault)
	p.wait(t, "the targets to be ready", func() (string, bool) {
		list, err := pods.List(t.Context(), metav1.ListOptions{LabelSelector: "target"})
		if err != nil {
			t.Fatal(err)
		}
		ready := 0
		for _, pod := range list.Items {
			for _, c := range pod.Status.Conditions {
				if c.Type == corev1.PodReady && c.Status == corev1.ConditionTrue {
					ready++
				}
			}
		}
		return fmt.Sprintf("%d of %d", ready, len(list.Items)), ready == targetPods && len(list.Items) == targetPods
	})
	p.wait(t, "the targets' slices", func() (string, bool) {
		list, err := p.lab.client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault).List(t.Context(), metav1.ListOptions{LabelSelector: "kubernetes.io/service-name=plain"})
		if err != nil {
			t.Fatal(err)
		}
		n := 0
		for _, s := range list.Items {
			for _, e := range s.Endpoints {
				if e.Conditions.Ready != nil && *e.Conditions.Ready {
					n++
				}
			}
		}
		return fmt.Sprintf("%d endpoints", n), n == echoPods
	})
}

// token is one of a service account, good for the time of the test.
func (p *apiProxies) token(t *testing.T, namespace, account string) string {
	t.Helper()
	tr, err := p.lab.client.CoreV1().ServiceAccounts(namespace).CreateToken(t.Context(), account, &authenticationv1.TokenRequest{}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	return tr.Status.Token
}
