package locate

import (
	"context"
	"fmt"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"

	"varco.dev/internal/apiserverproxy/address"
	"varco.dev/internal/apiwatch/directory"
	"varco.dev/internal/service"
)

// service is ResourceLocation of service/storage/storage.go, with these differences:
//
//   - Without a port, the only port of a Service is meant even if it has a name (kubernetes#20070).
//   - A port that is not TCP is none, for this speaks HTTP.
//   - A Service of type ExternalName has no endpoints, even if it has slices: they are of the time before it was one.
//
// sure tells whether the answer is right as long as the Service's version is the same.
func (l *Locator) service(ctx context.Context, a address.Address) (d *Destination, sure bool, err error) {
	s, err := l.objects.Service(ctx, service.Name{Namespace: a.Namespace, Name: a.Name})
	if err != nil {
		return nil, false, missing(a, err)
	}
	port, ok := servicePort(s, a.Port)
	switch {
	case !ok:
		return nil, true, noServicePort(a)
	case s.ExternalName:
		return nil, true, noEndpoints(a)
	}
	found, sure := l.endpoints(ctx, s, port.Name)
	if len(found.endpoints) == 0 {
		return nil, sure, noEndpoints(a)
	}
	if port.AppProtocol == "" {
		port.AppProtocol = found.appProtocol
	}
	d, err = serviceDestination(s, port, found.endpoints, a.Scheme)
	return d, sure, err
}

func serviceDestination(s *directory.Service, p directory.ServicePort, es []Endpoint, url string) (*Destination, error) {
	d := &Destination{
		Kind: address.Service, Namespace: s.Name.Namespace, Name: s.Name.Name, Port: p.Name,
		Scheme: scheme(url, p.AppProtocol, p.Name), Endpoints: es, Affinity: s.Affinity, Cookie: s.Cookie,
	}
	if d.Port == "" {
		d.Port = strconv.Itoa(int(p.Number))
	}
	tls := s.Backend
	if tls.ServerName == "" {
		tls.ServerName = d.Name + "." + d.Namespace + ".svc"
	}
	return d.finish(s.UID, tls)
}

// servicePort returns the port of a Service that an ID means. A name that the Service does not have is looked for in its
// slices all the same, as upstream does; only a number must be one of the Service.
func servicePort(s *directory.Service, port string) (directory.ServicePort, bool) {
	if port == "" {
		return defaultServicePort(s), true
	}
	n, err := strconv.ParseInt(port, 10, 64)
	for _, p := range s.Ports {
		if p.Protocol == service.TCP && (err == nil && int64(p.Number) == n || err != nil && p.Name == port) {
			return p, true
		}
	}
	return directory.ServicePort{Name: strings.Clone(port)}, err != nil // a clone, for it is kept longer than the request
}

// defaultServicePort is the port without name, or else the only one. If there are several, all with names, none is meant:
// there are no endpoints behind the port without name, which it returns then.
func defaultServicePort(s *directory.Service) directory.ServicePort {
	var only directory.ServicePort
	count := 0
	for _, p := range s.Ports {
		switch {
		case p.Protocol != service.TCP:
		case p.Name == "":
			return p
		default:
			only, count = p, count+1
		}
	}
	if count == 1 {
		return only
	}
	return directory.ServicePort{}
}

// missing is the answer if there is no such Service. Upstream asks for the Service only if the port is a number; else it
// finds that there are no slices.
func missing(a address.Address, err error) error {
	if _, e := strconv.ParseInt(a.Port, 10, 64); e != nil && apierrors.IsNotFound(err) {
		return noEndpoints(a)
	}
	return err
}

func noEndpoints(a address.Address) error {
	return apierrors.NewServiceUnavailable(fmt.Sprintf("no endpoints available for service %q", a.Name))
}

func noServicePort(a address.Address) error {
	n, _ := strconv.ParseInt(a.Port, 10, 64)
	return apierrors.NewServiceUnavailable(fmt.Sprintf("no service port %d found for service %q", n, a.Name))
}
