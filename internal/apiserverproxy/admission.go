package apiserverproxy

import (
	"context"
	"net/http"
	"path"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apiserver/pkg/admission"
	"k8s.io/apiserver/pkg/authorization/authorizer"
	"k8s.io/apiserver/pkg/endpoints/filters"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/streaming/pkg/httpstream"

	"varco.dev/internal/apiserverproxy/address"
)

// admit asks the admission chain, as kube-apiserver does: policies see the path in the options.
func (h *Handler) admit(ctx context.Context, info *request.RequestInfo, a address.Address) error {
	if h.config.Admission == nil || !h.config.Admission.Handles(admission.Connect) {
		return nil
	}
	options := connectOptions(a.Kind, pathOf(info))
	kind := options.GetObjectKind().GroupVersionKind()
	user, _ := request.UserFrom(ctx)
	resource := corev1.SchemeGroupVersion.WithResource(info.Resource)
	attributes := admission.NewAttributesRecord(options, nil, kind, info.Namespace, info.Name, resource, info.Subresource,
		admission.Connect, nil, false, user)
	chain := admission.WithAudit(h.config.Admission)
	objects := admission.NewObjectInterfacesFromScheme(scheme.Scheme)
	if m, ok := chain.(admission.MutationInterface); ok {
		if err := m.Admit(ctx, attributes, objects); err != nil {
			return err
		}
	}
	if v, ok := chain.(admission.ValidationInterface); ok {
		return v.Validate(ctx, attributes, objects)
	}
	return nil
}

// pathOf returns the path at the target as kube-apiserver puts it into the options (getRequestOptions in
// apiserver/pkg/endpoints/handlers/get.go): decoded, with one slash at its begin, and one at its end if the request has any.
// Policies are written for it, and whatever differs is a way around them. Of dot segments they see what is left of them, which
// is what the original asks the target for, and what a target makes of them here.
func pathOf(info *request.RequestInfo) string {
	const subresource = 3 // resource, name, "proxy"
	p := strings.Join(info.Parts[min(subresource, len(info.Parts)):], "/")
	if p != "" && !strings.HasPrefix(p, "/") {
		p = "/" + p
	}
	if strings.HasSuffix(info.Path, "/") && !strings.HasSuffix(p, "/") {
		p += "/"
	}
	if strings.Contains(p, "/.") {
		p = utilnet.JoinPreservingTrailingSlash("/", p)
	}
	return p
}

// connectOptions returns the object of an admission request. Its kind is set, so that nobody needs to convert it.
func connectOptions(kind address.Kind, path string) runtime.Object {
	meta := metav1.TypeMeta{APIVersion: "v1"}
	switch kind {
	case address.Pod:
		meta.Kind = "PodProxyOptions"
		return &corev1.PodProxyOptions{TypeMeta: meta, Path: path}
	case address.Service:
		meta.Kind = "ServiceProxyOptions"
		return &corev1.ServiceProxyOptions{TypeMeta: meta, Path: path}
	}
	meta.Kind = "NodeProxyOptions"
	return &corev1.NodeProxyOptions{TypeMeta: meta, Path: path}
}

// strict asks for the permission to create where more is asked for than the method tells: the upgrade of a GET is a shell
// or a tunnel, and so is what the kubelet runs. Kubernetes asks so for exec, attach and portforward since 1.35, but not for
// the proxy (k/k#136550). Commands over an upgrade through a node ask always: the original loses the query of upgrades, and
// so the command, and nobody who may only get has ever run one through it.
func (h *Handler) strict(r *http.Request, a address.Address) error {
	upgrade, runs := httpstream.IsUpgradeRequest(r), a.Kind == address.Node && runsCommands(r.URL.Path)
	if !(upgrade && runs) && !(h.config.StrictUpgrades && (upgrade || runs)) {
		return nil
	}
	asked, err := filters.GetAuthorizerAttributes(r.Context())
	if err != nil {
		return err
	}
	if asked.GetVerb() == "create" {
		return nil
	}
	create := authorizer.AttributesRecord{
		User: asked.GetUser(), Verb: "create", Namespace: asked.GetNamespace(), APIGroup: asked.GetAPIGroup(),
		APIVersion: asked.GetAPIVersion(), Resource: asked.GetResource(), Subresource: asked.GetSubresource(),
		Name: asked.GetName(), ResourceRequest: true, Path: asked.GetPath(),
	}
	if h.config.Authorizer == nil {
		return responsewriters.ForbiddenStatusError(create, "commands through a node need it, and there is nobody to ask")
	}
	decision, reason, err := h.config.Authorizer.Authorize(r.Context(), create)
	if decision == authorizer.DecisionAllow {
		return nil
	}
	if err != nil {
		return err
	}
	return responsewriters.ForbiddenStatusError(create, reason)
}

// runsCommands tells whether a path may make a kubelet run something, attach to it, or tunnel, however it cleans the path:
// any segment after the proxy counts.
func runsCommands(decoded string) bool {
	_, after, _ := strings.Cut(decoded, "/proxy")
	return slices.ContainsFunc(strings.Split(strings.ToLower(path.Clean("/"+after)+after), "/"), func(segment string) bool {
		switch segment {
		case "exec", "attach", "run", "portforward", "cri":
			return true
		}
		return false
	})
}
