package apiserverproxy

import (
	"context"
	"fmt"
	"net/netip"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/utils/ptr"
)

// Names of the objects. No controller runs beside them.
const (
	namespace = "bench"
	// web is a Service of all targets, in slices of sliceSizes.
	web = "web"
	// oneDead has as many endpoints in one slice, one of them with an address at which nobody listens.
	oneDead = "one-dead"
	// client is a service account that may use both.
	client = "client"
)

// Ports of the Services, by name.
const (
	smallPort = "small"
	pagePort  = "pages"
)

// sliceSizes are unequal: ten endpoints.
var sliceSizes = []int{6, 3, 1}

// endpoints is how many each Service has.
const endpoints = 10

// path of the proxy subresource of a Service. The port is given by name: by its number, kube-apiserver would read the
// Service from etcd for each request, besides the Pod.
func path(service, port, rest string) string {
	return fmt.Sprintf("/api/v1/namespaces/%s/services/%s:%s/proxy%s", namespace, service, port, rest)
}

// store writes the objects.
type store struct {
	api         kubernetes.Interface
	small, page uint16
}

// write makes everything. The addresses are those of the targets, and one more at which nobody listens.
func (s *store) write(ctx context.Context, addresses []netip.Addr) error {
	if err := s.namespace(ctx); err != nil {
		return err
	}
	for i, a := range addresses {
		if err := s.pod(ctx, i, a); err != nil {
			return fmt.Errorf("create Pod: %w", err)
		}
	}
	first := 0
	for _, n := range sliceSizes {
		if err := s.slice(ctx, web, first, addresses[first:first+n]); err != nil {
			return err
		}
		first += n
	}
	if err := s.slice(ctx, oneDead, len(addresses)-endpoints, addresses[len(addresses)-endpoints:]); err != nil {
		return err
	}
	for _, name := range []string{web, oneDead} {
		if _, err := s.api.CoreV1().Services(namespace).Create(ctx, s.service(name), metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create Service: %w", err)
		}
	}
	return nil
}

// namespace makes what controllers would: admission wants the default service account before there are pods.
func (s *store) namespace(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := s.api.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create namespace: %w", err)
	}
	for _, name := range []string{"default", client} {
		sa := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: name}}
		if _, err := s.api.CoreV1().ServiceAccounts(namespace).Create(ctx, sa, metav1.CreateOptions{}); err != nil {
			return fmt.Errorf("create service account: %w", err)
		}
	}
	role := &rbacv1.Role{ObjectMeta: metav1.ObjectMeta{Name: client}, Rules: []rbacv1.PolicyRule{
		{APIGroups: []string{""}, Resources: []string{"services/proxy"}, Verbs: []string{"get"}}}}
	if _, err := s.api.RbacV1().Roles(namespace).Create(ctx, role, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create role: %w", err)
	}
	binding := &rbacv1.RoleBinding{ObjectMeta: metav1.ObjectMeta{Name: client},
		RoleRef:  rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: client},
		Subjects: []rbacv1.Subject{{Kind: rbacv1.ServiceAccountKind, Namespace: namespace, Name: client}}}
	if _, err := s.api.RbacV1().RoleBindings(namespace).Create(ctx, binding, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create role binding: %w", err)
	}
	return nil
}

// podName is the Pod of address number i.
func podName(i int) string { return fmt.Sprintf("target-%02d", i) }

// pod makes a Pod on no node that is said to have the address.
func (s *store) pod(ctx context.Context, i int, a netip.Addr) error {
	pod := &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: podName(i)}, Spec: corev1.PodSpec{Containers: []corev1.Container{{
		Name: "target", Image: "target",
		Ports: []corev1.ContainerPort{{Name: smallPort, ContainerPort: int32(s.small)}, {Name: pagePort, ContainerPort: int32(s.page)}},
	}}}}
	pod, err := s.api.CoreV1().Pods(namespace).Create(ctx, pod, metav1.CreateOptions{})
	if err != nil {
		return err
	}
	pod.Status = corev1.PodStatus{Phase: corev1.PodRunning, PodIP: a.String(), PodIPs: []corev1.PodIP{{IP: a.String()}},
		Conditions: []corev1.PodCondition{{Type: corev1.PodReady, Status: corev1.ConditionTrue}}}
	_, err = s.api.CoreV1().Pods(namespace).UpdateStatus(ctx, pod, metav1.UpdateOptions{})
	return err
}

// service has no selector, so that its slices are nobody else's.
func (s *store) service(name string) *corev1.Service {
	return &corev1.Service{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.ServiceSpec{
		IPFamilies: []corev1.IPFamily{corev1.IPv4Protocol}, IPFamilyPolicy: ptr.To(corev1.IPFamilyPolicySingleStack),
		Ports: []corev1.ServicePort{{Name: smallPort, Port: int32(s.small)}, {Name: pagePort, Port: int32(s.page)}}}}
}

// slice has the endpoints of Pods from number first on.
func (s *store) slice(ctx context.Context, service string, first int, addresses []netip.Addr) error {
	out := &discoveryv1.EndpointSlice{
		ObjectMeta: metav1.ObjectMeta{Name: fmt.Sprintf("%s-%02d", service, first), Labels: map[string]string{
			discoveryv1.LabelServiceName: service, discoveryv1.LabelManagedBy: "varco-bench"}},
		AddressType: discoveryv1.AddressTypeIPv4,
		Ports: []discoveryv1.EndpointPort{
			{Name: ptr.To(smallPort), Port: ptr.To(int32(s.small)), Protocol: ptr.To(corev1.ProtocolTCP)},
			{Name: ptr.To(pagePort), Port: ptr.To(int32(s.page)), Protocol: ptr.To(corev1.ProtocolTCP)},
		},
	}
	for i, a := range addresses {
		out.Endpoints = append(out.Endpoints, discoveryv1.Endpoint{Addresses: []string{a.String()},
			Conditions: discoveryv1.EndpointConditions{Ready: ptr.To(true), Serving: ptr.To(true), Terminating: ptr.To(false)},
			TargetRef:  &corev1.ObjectReference{Kind: "Pod", Namespace: namespace, Name: podName(first + i)}})
	}
	if _, err := s.api.DiscoveryV1().EndpointSlices(namespace).Create(ctx, out, metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create EndpointSlice: %w", err)
	}
	return nil
}
