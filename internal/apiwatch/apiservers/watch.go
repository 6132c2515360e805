package apiservers

import (
	"context"
	"log/slog"
	"net/netip"
	"time"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/labels"
	"k8s.io/client-go/kubernetes"

	"varco.dev/internal/apiwatch/feed"
	"varco.dev/internal/service"
)

const (
	// serviceName is the Service of the API servers.
	serviceName = "kubernetes"
	// listRetry is the pause before slices that may not be listed are tried again: roles are often made after what needs them.
	listRetry = 30 * time.Second
)

// Config is what Watch wants to know. Its client must be allowed to list and watch endpointslices (discovery.k8s.io) in the
// namespace default; nothing else is asked for. kube-proxy's user and role system:node-proxier may. The user of a kubelet
// may not: the node authorizer gives it only the rules of the role system:node, which do not name EndpointSlices
// (NodeRules in k8s.io/kubernetes/plugin/pkg/auth/authorizer/rbac/bootstrappolicy, v1.37). As it then has no opinion, RBAC
// decides, and deploy/apiserver-lb-rbac.yaml lets all nodes. The role cannot be narrowed to a resourceName: slices are
// selected by label, since where administrators enter the addresses by hand (--endpoint-reconciler-type=none), controllers
// choose the names.
type Config struct {
	Client kubernetes.Interface // required
	Log    *slog.Logger         // required
}

// Watch calls changed with the addresses of all API servers, each once and sorted: at first, whenever they change, and
// after each new list, even if nothing has changed. Those that are not ready are among them only if all are so. There are
// none if the slices say so or are gone; whether to believe that is the caller's business. changed is called by one
// goroutine and must not block for long.
//
// It returns nil when the context ends. An API server that goes away is waited for, and so are the rights to list.
func Watch(ctx context.Context, c Config, changed func([]netip.AddrPort)) error {
	source := feed.NewSource(c.Client, c.Log)
	known := &servers{slices: map[service.Name]slice{}, changed: changed}
	defer feed.Start(ctx, []feed.Feed{known.feed(source)})()
	source.Contact.Follow(ctx)
	return nil
}

func (s *servers) feed(source *feed.Source) feed.Feed {
	sink := feed.NewSink(source, "EndpointSlice", convert)
	sink.Set, sink.Del, sink.Replace = s.set, s.del, s.replace
	client := source.Client.DiscoveryV1().EndpointSlices(metav1.NamespaceDefault)
	selectors := metav1.ListOptions{LabelSelector: labels.Set{discoveryv1.LabelServiceName: serviceName}.String()}
	return feed.Optional(source, sink, &discoveryv1.EndpointSlice{}, client, selectors, listRetry, func(err error) {
		source.Log.Warn("EndpointSlices of default/kubernetes may not be listed, so API servers that come are not found",
			"missing", "list and watch endpointslices.discovery.k8s.io in namespace default", "error", err)
	})
}

// ours says whether a slice is one of the API servers.
func ours(s *discoveryv1.EndpointSlice) bool {
	return s.Namespace == corev1.NamespaceDefault && s.Labels[discoveryv1.LabelServiceName] == serviceName &&
		(s.AddressType == discoveryv1.AddressTypeIPv4 || s.AddressType == discoveryv1.AddressTypeIPv6)
}
