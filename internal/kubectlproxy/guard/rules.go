package guard

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"k8s.io/apiserver/pkg/endpoints/request"
)

// rule is an entry of --deny: resource[.group][/subresource]. Without a group it means the resource in every group,
// without a subresource the resource with all it has. A "*" is any resource, or any subresource.
type rule struct {
	text                         string
	resource, group, subresource string
}

// ruleName matches a resource's, a group's or a subresource's name: DNS labels.
var ruleName = regexp.MustCompile(`^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$`)

// version matches what stands first in a group of kubectl's resource.version.group.
var version = regexp.MustCompile(`^v[0-9]+((alpha|beta)[0-9]+)?(\.|$)`)

// plurals are the names in paths of what users call by other names. A rule by such a name would match nothing, and its
// user would not know.
var plurals = map[string]string{
	"secret": "secrets", "configmap": "configmaps", "cm": "configmaps", "pod": "pods", "po": "pods", "node": "nodes",
	"no": "nodes", "namespace": "namespaces", "ns": "namespaces", "service": "services", "svc": "services",
	"serviceaccount": "serviceaccounts", "sa": "serviceaccounts", "endpoint": "endpoints", "ep": "endpoints",
	"event": "events", "ev": "events", "persistentvolume": "persistentvolumes", "pv": "persistentvolumes",
	"persistentvolumeclaim": "persistentvolumeclaims", "pvc": "persistentvolumeclaims", "deployment": "deployments",
	"deploy": "deployments", "daemonset": "daemonsets", "ds": "daemonsets", "replicaset": "replicasets",
	"rs": "replicasets", "statefulset": "statefulsets", "sts": "statefulsets", "replicationcontroller": "replicationcontrollers",
	"rc": "replicationcontrollers", "job": "jobs", "cronjob": "cronjobs", "cj": "cronjobs", "ingress": "ingresses",
	"ing": "ingresses", "networkpolicy": "networkpolicies", "netpol": "networkpolicies", "role": "roles",
	"rolebinding": "rolebindings", "clusterrole": "clusterroles", "clusterrolebinding": "clusterrolebindings",
	"customresourcedefinition": "customresourcedefinitions", "crd": "customresourcedefinitions",
	"crds": "customresourcedefinitions", "storageclass": "storageclasses", "sc": "storageclasses", "lease": "leases",
	"certificatesigningrequest": "certificatesigningrequests", "csr": "certificatesigningrequests",
}

func parseRule(text string) (rule, error) {
	r := rule{text: text}
	name, sub, hasSub := strings.Cut(strings.ToLower(text), "/")
	resource, group, hasGroup := strings.Cut(name, ".")
	r.resource, r.group, r.subresource = resource, group, sub
	switch {
	case resource != "*" && !ruleName.MatchString(resource),
		hasGroup && !ruleName.MatchString(group),
		hasSub && sub != "*" && !ruleName.MatchString(sub):
		return rule{}, fmt.Errorf("%q is no resource: write secrets, deployments.apps, pods/exec or *.rbac.authorization.k8s.io", text)
	case hasGroup && version.MatchString(group):
		return rule{}, fmt.Errorf("%q has a version: a rule holds for all versions, write resource.group", text)
	}
	if plural, ok := plurals[resource]; ok {
		return rule{}, fmt.Errorf("%q is not how paths name it: write %s", text, plural)
	}
	return r, nil
}

// covers says whether the rule denies a request for a resource: that resource, or what leads to it. A node's kubelet
// serves its pods, their logs and what runs in them through nodes/proxy.
func (r rule) covers(info *request.RequestInfo) bool {
	kubelet := info.APIGroup == "" && strings.EqualFold(info.Resource, "nodes") && subresource(info) == "proxy"
	return r.matches(info) || kubelet && r.resource == "pods" && r.group == ""
}

func (r rule) matches(info *request.RequestInfo) bool {
	if r.resource != "*" && r.resource != strings.ToLower(info.Resource) {
		return false
	}
	if r.group != "" && r.group != strings.ToLower(info.APIGroup) {
		return false
	}
	sub := subresource(info)
	return r.subresource == "" || r.subresource == sub || r.subresource == "*" && sub != ""
}

// subresource returns the subresource in lower case. /api/v1/proxy/nodes/NAME is how nodes/NAME/proxy once was.
func subresource(info *request.RequestInfo) string {
	if info.Verb == "proxy" {
		return "proxy"
	}
	return strings.ToLower(info.Subresource)
}

// matchesLoosely is for paths that are not the API's as far as one can tell: the names in them, wherever they stand, are
// enough.
func (r rule) matchesLoosely(segments []string) bool {
	name := r.resource
	if name == "*" {
		name = r.group
	}
	if name != "" {
		at := indexFold(segments, name)
		if at < 0 {
			return false
		}
		segments = segments[at+1:]
	}
	return r.subresource == "" || r.subresource == "*" || indexFold(segments, r.subresource) >= 0
}

func indexFold(segments []string, name string) int {
	return slices.IndexFunc(segments, func(s string) bool { return strings.EqualFold(s, name) })
}
