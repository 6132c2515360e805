package objects_test

import (
	"context"
	"net/netip"
	"testing"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes/fake"

	"varco.dev/bench/internal/objects"
	"varco.dev/bench/internal/world"
)

func TestAddressesAreApart(t *testing.T) {
	seen := map[netip.AddrPort]int{}
	for i := range objects.MaxServices + 2 {
		ip := objects.ClusterIP(i)
		if !world.ServiceCIDR.Contains(ip.Addr()) {
			t.Fatalf("ClusterIP %d is %s, outside %s", i, ip, world.ServiceCIDR)
		}
		seen[ip]++
	}
	for i := range objects.MaxServices {
		for n := range objects.PerService {
			for _, side := range []world.Side{world.A, world.B} {
				e := objects.Endpoint(i, n, side)
				if !side.Net().Contains(e.Addr()) || !world.ClusterCIDR.Contains(e.Addr()) {
					t.Fatalf("endpoint %d of %d is %s, outside %s or %s", n, i, e, side.Net(), world.ClusterCIDR)
				}
				seen[e]++
			}
		}
	}
	if want := objects.MaxServices*(1+2*objects.PerService) + 2; len(seen) != want {
		t.Errorf("got %d addresses, want %d: some are the same", len(seen), want)
	}
}

func TestSlicesHaveTheirEndpoints(t *testing.T) {
	for i, want := range map[int]int{0: objects.PerService, objects.Plain: objects.Many, objects.Sticky: objects.Many} {
		addresses := map[string]bool{}
		for _, e := range objects.Slice(i, world.B).Endpoints {
			addresses[e.Addresses[0]] = true
		}
		if len(addresses) != want {
			t.Errorf("slice %d has %d endpoints, want %d", i, len(addresses), want)
		}
	}
	if objects.Service(objects.Sticky).Spec.SessionAffinity != "ClientIP" || objects.Service(objects.Plain).Spec.SessionAffinity != "" {
		t.Error("session affinity is not Sticky's alone")
	}
}

func TestStoreFlipsAndPutsBack(t *testing.T) {
	ctx, client := context.Background(), fake.NewClientset()
	store := objects.NewStore(client)
	for _, count := range []int{2, 3} {
		if err := store.Grow(ctx, count); err != nil {
			t.Fatal(err)
		}
	}
	list, err := client.CoreV1().Services(objects.Namespace).List(ctx, metav1.ListOptions{})
	if err != nil || len(list.Items) != 3 {
		t.Fatalf("got %d Services, %v, want 3", len(list.Items), err)
	}
	for _, want := range []world.Side{world.B, world.A, world.B} {
		if _, err := store.Flip(ctx, 1); err != nil {
			t.Fatal(err)
		}
		if got := side(t, client, 1); got != want || store.Side(1) != want {
			t.Errorf("the slice is on side %c, the store says %c, want %c", got.Name(), store.Side(1).Name(), want.Name())
		}
	}
	if err := objects.NewStore(client).Grow(ctx, 3); err != nil {
		t.Fatal(err)
	}
	if got := side(t, client, 1); got != world.A {
		t.Errorf("a new store left the slice on side %c", got.Name())
	}
}

// side is where the API has the endpoints of a Service.
func side(t *testing.T, client *fake.Clientset, i int) world.Side {
	t.Helper()
	s, err := client.DiscoveryV1().EndpointSlices(objects.Namespace).Get(t.Context(), objects.Name(i), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if world.B.Net().Contains(netip.MustParseAddr(s.Endpoints[0].Addresses[0])) {
		return world.B
	}
	return world.A
}
