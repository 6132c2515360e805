package apiserverproxy

import (
	"net/netip"
	"testing"

	"github.com/google/go-cmp/cmp"
	discoveryv1 "k8s.io/api/discovery/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"
)

func TestObjectsLeadToTheTargets(t *testing.T) {
	api, addresses := fake.NewClientset(), testAddresses()
	if err := (&store{api: api, small: 1, page: 2}).write(t.Context(), addresses); err != nil {
		t.Fatal(err)
	}
	list, err := api.DiscoveryV1().EndpointSlices(namespace).List(t.Context(), metav1.ListOptions{})
	if err != nil {
		t.Fatal(err)
	}
	got, sizes := map[string][]string{}, map[string][]int{}
	for _, s := range list.Items {
		service := s.Labels[discoveryv1.LabelServiceName]
		sizes[service] = append(sizes[service], len(s.Endpoints))
		for _, e := range s.Endpoints {
			got[service] = append(got[service], e.Addresses...)
			// kube-apiserver leads to an endpoint only if there is such a Pod with this address.
			pod, err := api.CoreV1().Pods(namespace).Get(t.Context(), e.TargetRef.Name, metav1.GetOptions{})
			if err != nil || pod.Status.PodIPs[0].IP != e.Addresses[0] {
				t.Errorf("endpoint %s has pod %+v, %v", e.Addresses[0], pod, err)
			}
		}
	}
	if d := cmp.Diff(map[string][]int{web: sliceSizes, oneDead: {endpoints}}, sizes); d != "" {
		t.Errorf("sizes of slices (-want +got):\n%s", d)
	}
	living, dead := texts(addresses[:endpoints]), texts(addresses[1:])
	if d := cmp.Diff(map[string][]string{web: living, oneDead: dead}, got); d != "" {
		t.Errorf("endpoints (-want +got):\n%s", d)
	}
}

func texts(addresses []netip.Addr) (out []string) {
	for _, a := range addresses {
		out = append(out, a.String())
	}
	return out
}
