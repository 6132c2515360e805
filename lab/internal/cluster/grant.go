package cluster

import (
	"context"
	"fmt"

	rbacv1 "k8s.io/api/rbac/v1"
	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"varco.dev/lab/internal/controlplane"
	"varco.dev/lab/internal/node"
)

// grant gives what runs in the lab the permissions that Kubernetes does not give it.
func (s *supervisor) grant(ctx context.Context, client kubernetes.Interface) error {
	if err := grantNodes(ctx, client); err != nil || s.layout.Balancer == nil {
		return err
	}
	return grantBalancer(ctx, client)
}

// grantNodes lets the node agents do what kubelets need not: the Node authorizer alone does not allow it.
func grantNodes(ctx context.Context, client kubernetes.Interface) error {
	role, binding := node.Grants()
	_, err := client.RbacV1().ClusterRoles().Create(ctx, role, metav1.CreateOptions{})
	if err != nil && !errors.IsAlreadyExists(err) {
		return fmt.Errorf("make role of the node agents: %w", err)
	}
	_, err = client.RbacV1().ClusterRoleBindings().Create(ctx, binding, metav1.CreateOptions{})
	if err != nil && !errors.IsAlreadyExists(err) {
		return fmt.Errorf("give the node agents their role: %w", err)
	}
	return nil
}

// grantBalancer lets varco apiserver-lb watch the EndpointSlices among which the API servers' own one is.
func grantBalancer(ctx context.Context, client kubernetes.Interface) error {
	const name = controlplane.BalancerUser
	rbac := client.RbacV1()
	_, err := rbac.Roles(metav1.NamespaceDefault).Create(ctx, &rbacv1.Role{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		Rules: []rbacv1.PolicyRule{{
			APIGroups: []string{"discovery.k8s.io"}, Resources: []string{"endpointslices"}, Verbs: []string{"list", "watch"},
		}},
	}, metav1.CreateOptions{})
	if err != nil && !errors.IsAlreadyExists(err) {
		return fmt.Errorf("make role of %s: %w", name, err)
	}
	_, err = rbac.RoleBindings(metav1.NamespaceDefault).Create(ctx, &rbacv1.RoleBinding{
		ObjectMeta: metav1.ObjectMeta{Name: name},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: "Role", Name: name},
		Subjects:   []rbacv1.Subject{{APIGroup: rbacv1.GroupName, Kind: rbacv1.UserKind, Name: name}},
	}, metav1.CreateOptions{})
	if err != nil && !errors.IsAlreadyExists(err) {
		return fmt.Errorf("give %s its role: %w", name, err)
	}
	return nil
}
