package origin

import (
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"varco.dev/internal/httpproxy"
)

// getter reads an object of the API: its escaped path and query, and where the JSON goes. Errors are the API server's
// StatusError, or those of the connection to it.
type getter func(ctx context.Context, path string, into any) error

// resolve finds out where an origin leads. Errors are a Status for the user.
func resolve(ctx context.Context, get getter, o Origin) (*route, error) {
	if o.Pod {
		return resolvePod(ctx, get, o)
	}
	return resolveService(ctx, get, o)
}

func resolveService(ctx context.Context, get getter, o Origin) (*route, error) {
	var service corev1.Service
	if err := get(ctx, "/api/v1/namespaces/"+o.Namespace+"/services/"+o.Name, &service); err != nil {
		return nil, err
	}
	if service.Spec.Type == corev1.ServiceTypeExternalName {
		return nil, httpproxy.Status(http.StatusBadRequest, metav1.StatusReasonBadRequest, fmt.Sprintf(
			"Service %s/%s is of type ExternalName: it is the name %s, and runs outside the cluster",
			o.Namespace, o.Name, service.Spec.ExternalName))
	}
	port, err := findPort(o, service.Spec.Ports, servicePortFacts)
	if err != nil {
		return nil, err
	}
	var list discoveryv1.EndpointSliceList
	err = get(ctx, "/apis/discovery.k8s.io/v1/namespaces/"+o.Namespace+"/endpointslices?labelSelector="+
		discoveryv1.LabelServiceName+"%3D"+o.Name, &list)
	if err != nil {
		return nil, err
	}
	return serviceRoute(o, &service, port, list.Items), nil
}

func serviceRoute(o Origin, service *corev1.Service, port corev1.ServicePort, slices []discoveryv1.EndpointSlice) *route {
	r := &route{
		host:        o.Name + "." + o.Namespace + ".svc",
		servicePort: strconv.Itoa(int(port.Port)),
		sticky:      service.Spec.SessionAffinity == corev1.ServiceAffinityClientIP,
	}
	numbers := []int{int(port.Port)}
	if port.TargetPort.Type == intstr.Int {
		numbers = append(numbers, port.TargetPort.IntValue())
	}
	r.protocol = protocolOf(value(port.AppProtocol), port.Name, numbers...)
	r.fill(o.Namespace, port, slices)
	return r
}

// fill takes the endpoints that are ready over, and where there is none those that still serve while they terminate, as
// kube-proxy does (KEP-1669).
func (r *route) fill(namespace string, port corev1.ServicePort, list []discoveryv1.EndpointSlice) {
	var leaving []endpoint
	for i := range list {
		number := slicePort(&list[i], port)
		if number == 0 {
			continue
		}
		for _, e := range list[i].Endpoints {
			if e.TargetRef == nil || e.TargetRef.Kind != "Pod" {
				r.podless = true
				continue
			}
			to := endpoint{podName{namespace, e.TargetRef.Name}, number}
			switch c := e.Conditions; {
			case c.Ready == nil || *c.Ready:
				r.endpoints = append(r.endpoints, to)
			case c.Serving != nil && *c.Serving:
				leaving = append(leaving, to)
			}
		}
	}
	if len(r.endpoints) == 0 {
		r.endpoints = leaving
	}
}

// slicePort is the number that a Service's port has in a slice, or 0.
func slicePort(slice *discoveryv1.EndpointSlice, port corev1.ServicePort) int {
	if slice.AddressType == discoveryv1.AddressTypeFQDN {
		return 0
	}
	for _, p := range slice.Ports {
		if value(p.Name) == port.Name && p.Port != nil && (p.Protocol == nil || *p.Protocol == corev1.ProtocolTCP) {
			return int(*p.Port)
		}
	}
	return 0
}

func resolvePod(ctx context.Context, get getter, o Origin) (*route, error) {
	if n := number(o.Port); n != 0 { // no look at the pod: its ports need not be declared
		return podRoute(o, n, ""), nil
	}
	var pod corev1.Pod
	if err := get(ctx, "/api/v1/namespaces/"+o.Namespace+"/pods/"+o.Name, &pod); err != nil {
		return nil, err
	}
	port, err := findPort(o, podPorts(&pod), podPortFacts)
	if err != nil {
		return nil, err
	}
	return podRoute(o, int(port.ContainerPort), port.Name), nil
}

func podRoute(o Origin, port int, name string) *route {
	return &route{
		protocol: protocolOf("", name, port), host: o.Name + "." + o.Namespace + ".pod",
		servicePort: strconv.Itoa(port), endpoints: []endpoint{{podName{o.Namespace, o.Name}, port}},
	}
}

// podPorts are those of containers, and of init containers that stay (sidecars).
func podPorts(pod *corev1.Pod) []corev1.ContainerPort {
	var ports []corev1.ContainerPort
	for _, c := range pod.Spec.Containers {
		ports = append(ports, c.Ports...)
	}
	for _, c := range pod.Spec.InitContainers {
		if c.RestartPolicy != nil && *c.RestartPolicy == corev1.ContainerRestartPolicyAlways {
			ports = append(ports, c.Ports...)
		}
	}
	return ports
}

// facts are what names a port and what it is.
type facts struct {
	name     string
	number   int32
	protocol corev1.Protocol
}

func servicePortFacts(p corev1.ServicePort) facts { return facts{p.Name, p.Port, p.Protocol} }

func podPortFacts(p corev1.ContainerPort) facts { return facts{p.Name, p.ContainerPort, p.Protocol} }

func (f facts) tcp() bool { return f.protocol == "" || f.protocol == corev1.ProtocolTCP }

func (f facts) String() string {
	s := strconv.Itoa(int(f.number))
	if f.name != "" {
		s += " (" + f.name + ")"
	}
	if !f.tcp() {
		s += " " + string(f.protocol)
	}
	return s
}

// findPort returns the TCP port that an origin names, or the only one. One that carries something else is refused.
func findPort[P any](o Origin, ports []P, of func(P) facts) (P, error) {
	var none P
	var all []string
	var found, other []P
	for _, p := range ports {
		f := of(p)
		all = append(all, f.String())
		switch {
		case o.Port != "" && o.Port != f.name && o.Port != strconv.Itoa(int(f.number)):
		case f.tcp():
			found = append(found, p)
		default:
			other = append(other, p)
		}
	}
	switch {
	case len(found) == 1 || len(found) > 1 && o.Port != "":
		return found[0], nil
	case len(found) == 0 && len(other) > 0:
		return none, httpproxy.Status(http.StatusBadRequest, metav1.StatusReasonBadRequest, fmt.Sprintf(
			"%s carries %s, and only TCP can be reached: it has %s", o, of(other[0]).protocol, listed(all)))
	case o.Port == "":
		return none, notFound("%s has %s: say which, as in http://<port>.%s", o, listed(all), o.Host())
	}
	return none, notFound("%s does not exist: the %s has %s", o, o.noun(), listed(all))
}

func listed(ports []string) string {
	switch len(ports) {
	case 0:
		return "no ports"
	case 1:
		return "the port " + ports[0]
	}
	return "the ports " + strings.Join(ports, ", ")
}

func notFound(format string, args ...any) error {
	return httpproxy.Status(http.StatusNotFound, metav1.StatusReasonNotFound, fmt.Sprintf(format, args...))
}

func value(s *string) string {
	if s == nil {
		return ""
	}
	return *s
}

// number is a port given as a number, or 0.
func number(port string) int {
	n, _ := strconv.Atoi(port)
	return n
}
