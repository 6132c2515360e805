package main_test

import (
	"context"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"varco.dev/lab/internal/controlplane"
	"varco.dev/lab/internal/demo"
)

// deployedAPIServerProxy runs varco apiserver-proxy as an aggregated API server by the manifests of deploy/.
func (l *lab) deployedAPIServerProxy(t *testing.T) {
	const name = "varco-apiserver-proxy"
	conf, err := l.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	ca, err := controlplane.NewAuthority("varco")
	if err != nil {
		t.Fatal(err)
	}
	pair, err := ca.Issue(controlplane.Subject{Names: []string{name + ".kube-system.svc"}})
	if err != nil {
		t.Fatal(err)
	}
	system := l.client.CoreV1()
	_, err = system.Secrets(metav1.NamespaceSystem).Create(t.Context(), &corev1.Secret{
		ObjectMeta: metav1.ObjectMeta{Name: name + "-tls"}, Type: corev1.SecretTypeTLS,
		Data: map[string][]byte{corev1.TLSCertKey: pair.Cert, corev1.TLSPrivateKeyKey: pair.Key},
	}, metav1.CreateOptions{})
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range []string{"../deploy/apiserver-proxy-rbac.yaml", "../deploy/apiserver-proxy-aggregated.yaml"} {
		text, err := os.ReadFile(file)
		if err == nil {
			text = []byte(strings.ReplaceAll(string(text), "${CA_BUNDLE}", base64.StdEncoding.EncodeToString(ca.Cert)))
			err = demo.Apply(t.Context(), conf, text)
		}
		if err != nil {
			t.Fatal(err)
		}
	}
	defer func() {
		ctx := context.Background()
		// An API that is announced and not served makes the controllers fail that list all.
		_ = l.client.Discovery().RESTClient().Delete().AbsPath("/apis/apiregistration.k8s.io/v1/apiservices/v1.proxy.varco.dev").Do(ctx)
		_ = l.client.AppsV1().Deployments(metav1.NamespaceSystem).Delete(ctx, name, metav1.DeleteOptions{})
		_ = system.Services(metav1.NamespaceSystem).Delete(ctx, name, metav1.DeleteOptions{})
	}()
	c, err := rest.HTTPClientFor(conf)
	if err != nil {
		t.Fatal(err)
	}
	l.wait(t, "the aggregated API", func() (string, bool) {
		return l.getOnce(t, c, conf.Host+aggregatedBase+"/namespaces/default/services/echo:http/proxy/x", `"path": "/x"`)
	})
	d, err := l.client.AppsV1().Deployments(metav1.NamespaceSystem).Get(t.Context(), name, metav1.GetOptions{})
	if err != nil || d.Status.ReadyReplicas == 0 {
		t.Errorf("%d pods are ready, %v", d.Status.ReadyReplicas, err)
	}
}

// getOnce tells whether the answer is 200 with a text in it.
func (l *lab) getOnce(t *testing.T, c *http.Client, url, want string) (seen string, ok bool) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		return err.Error(), false
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return fmt.Sprintf("%s %s %v", resp.Status, text, err), resp.StatusCode == http.StatusOK && strings.Contains(string(text), want)
}
