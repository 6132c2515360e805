package apiservers_test

import (
	"os"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"
	rbacv1 "k8s.io/api/rbac/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"sigs.k8s.io/yaml"
)

// deployed returns the role and its binding that users are told to make.
func deployed(t *testing.T) (role rbacv1.Role, binding rbacv1.RoleBinding) {
	t.Helper()
	text, err := os.ReadFile("../../../deploy/apiserver-lb-rbac.yaml")
	if err != nil {
		t.Fatal(err)
	}
	parts := strings.Split(string(text), "\n---\n")
	if len(parts) != 2 {
		t.Fatalf("%d objects", len(parts))
	}
	for i, into := range []any{&role, &binding} {
		if err := yaml.UnmarshalStrict([]byte(parts[i]), into); err != nil {
			t.Fatal(err)
		}
	}
	return role, binding
}

// allowed returns what the role allows, as "NAMESPACE VERB RESOURCE.GROUP".
func allowed(t *testing.T) map[string]bool {
	role, _ := deployed(t)
	out := map[string]bool{}
	for _, r := range role.Rules {
		for _, verb := range r.Verbs {
			for _, resource := range r.Resources {
				for _, group := range r.APIGroups {
					out[role.Namespace+" "+verb+" "+resource+"."+group] = true
				}
			}
		}
	}
	return out
}

// The role allows what is needed and no more, and nodes and the balancer's own user have it.
func TestDeployedRole(t *testing.T) {
	want := map[string]bool{"default list endpointslices.discovery.k8s.io": true, "default watch endpointslices.discovery.k8s.io": true}
	if diff := cmp.Diff(want, allowed(t)); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
	role, binding := deployed(t)
	wantBinding := rbacv1.RoleBinding{
		TypeMeta:   metav1.TypeMeta{APIVersion: rbacv1.SchemeGroupVersion.String(), Kind: "RoleBinding"},
		ObjectMeta: metav1.ObjectMeta{Name: role.Name, Namespace: role.Namespace},
		RoleRef:    rbacv1.RoleRef{APIGroup: rbacv1.GroupName, Kind: role.Kind, Name: role.Name},
		Subjects: []rbacv1.Subject{
			{Kind: rbacv1.GroupKind, APIGroup: rbacv1.GroupName, Name: "system:nodes"},
			{Kind: rbacv1.UserKind, APIGroup: rbacv1.GroupName, Name: "varco-apiserver-lb"},
		},
	}
	if diff := cmp.Diff(wantBinding, binding); diff != "" {
		t.Errorf("(-want +got)\n%s", diff)
	}
}
