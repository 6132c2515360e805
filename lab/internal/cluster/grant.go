package cluster

import (
	"context"
	"fmt"

	"k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"varco.dev/lab/internal/node"
)

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
