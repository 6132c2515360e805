package node

import (
	"context"
	"fmt"
	"net"
	"strconv"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	v1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// references reads the objects that one pod refers to, each time from the API server: a pod that is made after a change
// of its ConfigMap must see the change.
type references struct {
	ctx    context.Context
	client kubernetes.Interface
	pod    *v1.Pod
}

var _ objects = references{}

// ConfigMap is in objects.
func (r references) ConfigMap(name string, optional *bool) (map[string][]byte, error) {
	cm, err := r.client.CoreV1().ConfigMaps(r.pod.Namespace).Get(r.ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, missing(err, "ConfigMap", name, optional)
	}
	data := map[string][]byte{}
	for k, v := range cm.Data {
		data[k] = []byte(v)
	}
	for k, v := range cm.BinaryData {
		data[k] = v
	}
	return data, nil
}

// Secret is in objects.
func (r references) Secret(name string, optional *bool) (map[string][]byte, error) {
	s, err := r.client.CoreV1().Secrets(r.pod.Namespace).Get(r.ctx, name, metav1.GetOptions{})
	if err != nil {
		return nil, missing(err, "Secret", name, optional)
	}
	data := map[string][]byte{}
	for k, v := range s.Data {
		data[k] = v
	}
	for k, v := range s.StringData { // only a client that is no server shows it
		data[k] = []byte(v)
	}
	return data, nil
}

func missing(err error, kind, name string, optional *bool) error {
	if apierrors.IsNotFound(err) && optional != nil && *optional {
		return nil
	}
	return fmt.Errorf("read %s %s: %w", kind, name, err)
}

// Token requests a token for the pod's service account, bound to the pod, and returns when to renew it: at 80 % of its
// life, as the kubelet does.
func (r references) Token(p *v1.ServiceAccountTokenProjection) (string, time.Time, error) {
	req := &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{
		ExpirationSeconds: p.ExpirationSeconds,
		BoundObjectRef:    &authenticationv1.BoundObjectReference{APIVersion: "v1", Kind: "Pod", Name: r.pod.Name, UID: r.pod.UID},
	}}
	if p.Audience != "" {
		req.Spec.Audiences = []string{p.Audience}
	}
	asked := time.Now()
	got, err := r.client.CoreV1().ServiceAccounts(r.pod.Namespace).
		CreateToken(r.ctx, r.pod.Spec.ServiceAccountName, req, metav1.CreateOptions{})
	if err != nil {
		return "", time.Time{}, fmt.Errorf("request token of service account %s: %w", r.pod.Spec.ServiceAccountName, err)
	}
	life := got.Status.ExpirationTimestamp.Sub(asked)
	if s := got.Spec.ExpirationSeconds; s != nil && time.Duration(*s)*time.Second < life {
		life = time.Duration(*s) * time.Second
	}
	return got.Status.Token, asked.Add(life * 8 / 10), nil
}

// apiServerEnv returns the variables by which programs in a cluster find the API server.
// There are none before the API server has made its Service.
func apiServerEnv(ctx context.Context, client kubernetes.Interface) (map[string]string, error) {
	svc, err := client.CoreV1().Services("default").Get(ctx, "kubernetes", metav1.GetOptions{})
	if apierrors.IsNotFound(err) || err == nil && len(svc.Spec.Ports) == 0 {
		return map[string]string{}, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read the API server's Service: %w", err)
	}
	host, port := svc.Spec.ClusterIP, strconv.Itoa(int(svc.Spec.Ports[0].Port))
	addr := net.JoinHostPort(host, port)
	prefix := "KUBERNETES_PORT_" + port + "_TCP"
	return map[string]string{
		"KUBERNETES_SERVICE_HOST":       host,
		"KUBERNETES_SERVICE_PORT":       port,
		"KUBERNETES_SERVICE_PORT_HTTPS": port,
		"KUBERNETES_PORT":               "tcp://" + addr,
		prefix:                          "tcp://" + addr,
		prefix + "_ADDR":                host,
		prefix + "_PORT":                port,
		prefix + "_PROTO":               "tcp",
	}, nil
}
