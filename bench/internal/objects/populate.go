package objects

import (
	"context"
	"fmt"
	"sync"

	"golang.org/x/sync/errgroup"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"

	"varco.dev/bench/internal/world"
)

// writers is how many objects are written at a time: more make the API server slower, not faster.
const writers = 32

// Store writes the objects and remembers where endpoints are.
type Store struct {
	client kubernetes.Interface
	count  int // Services that exist; for Grow alone

	mu    sync.Mutex
	sides map[int]world.Side // of the Services that were moved; others are on side A
}

// NewStore returns a store that has written nothing.
func NewStore(client kubernetes.Interface) *Store {
	return &Store{client: client, sides: map[int]world.Side{}}
}

// Begin makes what all sizes have: the namespace, the node and the Services of many endpoints. What exists is left.
func (s *Store) Begin(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: Namespace}}
	_, err := s.client.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{})
	if err := unlessThere(err); err != nil {
		return fmt.Errorf("create namespace: %w", err)
	}
	node, err := s.client.CoreV1().Nodes().Create(ctx, Node(), metav1.CreateOptions{})
	if err := unlessThere(err); err != nil {
		return fmt.Errorf("create node: %w", err)
	}
	if err == nil {
		node.Status = Node().Status
		if _, err := s.client.CoreV1().Nodes().UpdateStatus(ctx, node, metav1.UpdateOptions{}); err != nil {
			return fmt.Errorf("write the node's status: %w", err)
		}
	}
	for _, i := range []int{Plain, Sticky} {
		if err := s.create(ctx, i); err != nil {
			return err
		}
	}
	return nil
}

// Grow makes Services until there are count, from a smaller number at the call before. What exists is put as it was first.
func (s *Store) Grow(ctx context.Context, count int) error {
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(writers)
	for i := s.count; i < count; i++ {
		g.Go(func() error { return s.create(ctx, i) })
	}
	s.count = max(s.count, count)
	return g.Wait()
}

func (s *Store) create(ctx context.Context, i int) error {
	_, err := s.client.DiscoveryV1().EndpointSlices(Namespace).Create(ctx, Slice(i, world.A), metav1.CreateOptions{})
	there := apierrors.IsAlreadyExists(err)
	if there {
		_, err = s.put(ctx, i, world.A)
	}
	if err != nil {
		return fmt.Errorf("create EndpointSlice %d: %w", i, err)
	}
	if there && s.hasService(ctx, i) {
		return nil
	}
	if _, err := s.client.CoreV1().Services(Namespace).Create(ctx, Service(i), metav1.CreateOptions{}); err != nil {
		return fmt.Errorf("create Service %d: %w", i, err)
	}
	return nil
}

// hasService asks before the Service is created again: the API server would say that its ClusterIP is taken, not that it
// exists.
func (s *Store) hasService(ctx context.Context, i int) bool {
	_, err := s.client.CoreV1().Services(Namespace).Get(ctx, Name(i), metav1.GetOptions{})
	return err == nil
}

func unlessThere(err error) error {
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// Side is where the endpoints of Service number i are.
func (s *Store) Side(i int) world.Side {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.sides[i]
}

// Flip moves all endpoints of Service number i to the other side, and returns the version that the API server gave the
// slice. Different Services may be moved at the same time.
func (s *Store) Flip(ctx context.Context, i int) (version string, err error) {
	side := s.Side(i).Other()
	if version, err = s.put(ctx, i, side); err != nil {
		return "", fmt.Errorf("change EndpointSlice %d: %w", i, err)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.sides[i] = side
	return version, nil
}

func (s *Store) put(ctx context.Context, i int, side world.Side) (version string, err error) {
	slice, err := s.client.DiscoveryV1().EndpointSlices(Namespace).Update(ctx, Slice(i, side), metav1.UpdateOptions{})
	if err != nil {
		return "", err
	}
	return slice.ResourceVersion, nil
}
