package server

import (
	"encoding/json"
	"fmt"
	"net/http"
	"strings"

	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apiserver/pkg/endpoints"
	"k8s.io/apiserver/pkg/endpoints/discovery"
	"k8s.io/apiserver/pkg/endpoints/discovery/aggregated"
)

// documents are what an API server says about itself: what clients and the aggregation layer ask for.
type documents struct {
	*http.ServeMux
}

// resources are those of the group, in the words of kube-apiserver for the core group's.
func resources() []metav1.APIResource {
	verbs := metav1.Verbs{"create", "delete", "get", "patch", "update"}
	return []metav1.APIResource{
		{Name: "nodes/proxy", Kind: "NodeProxyOptions", Verbs: verbs},
		{Name: "pods/proxy", Namespaced: true, Kind: "PodProxyOptions", Verbs: verbs},
		{Name: "services/proxy", Namespaced: true, Kind: "ServiceProxyOptions", Verbs: verbs},
	}
}

func newDocuments(codecs serializer.CodecFactory) (*documents, error) {
	d := &documents{http.NewServeMux()}
	gv := metav1.GroupVersionForDiscovery{GroupVersion: groupVersion().String(), Version: Version}
	group := metav1.APIGroup{Name: Group, Versions: []metav1.GroupVersionForDiscovery{gv}, PreferredVersion: gv}
	root := discovery.NewRootAPIsHandler(discovery.DefaultAddresses{}, codecs)
	root.AddGroup(group)
	all, err := newAggregatedDiscovery()
	if err != nil {
		return nil, err
	}
	d.get("/apis", aggregated.WrapAggregatedDiscoveryToHandler(root, all, nil))
	d.get("/apis/"+Group, discovery.NewAPIGroupHandler(codecs, group))
	d.get("/apis/"+gv.GroupVersion, discovery.NewAPIVersionHandler(codecs, groupVersion(), discovery.APIResourceListerFunc(resources)))
	return d, d.openAPI()
}

// get serves a path, with and without a slash at its end.
func (d *documents) get(path string, h http.Handler) {
	d.Handle("GET "+path, h)
	d.Handle("GET "+path+"/{$}", h)
}

// newAggregatedDiscovery returns what kube-apiserver puts into its own discovery document.
func newAggregatedDiscovery() (http.Handler, error) {
	converted, err := endpoints.ConvertGroupVersionIntoToDiscovery(resources())
	if err != nil {
		return nil, fmt.Errorf("describe the resources: %w", err)
	}
	all := aggregated.NewResourceManager("apis")
	all.SetGroups([]apidiscoveryv2.APIGroupDiscovery{{
		ObjectMeta: metav1.ObjectMeta{Name: Group},
		Versions:   []apidiscoveryv2.APIVersionDiscovery{{Version: Version, Resources: converted, Freshness: apidiscoveryv2.DiscoveryFreshnessCurrent}},
	}})
	return all, nil
}

// ready adds the pages of health.
func (d *documents) ready(wrong func() error) {
	alive := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, "ok") })
	d.get("/livez", alive)
	check := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		if err := wrong(); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError) // upstream's code
			return
		}
		fmt.Fprint(w, "ok")
	})
	d.get("/readyz", check)
	d.get("/healthz", check)
}

// openAPI adds descriptions of the group. That of version 2 is empty, as it would be merged into a document which every
// client of the cluster downloads.
func (d *documents) openAPI() error {
	const v3 = "/openapi/v3/apis/" + Group + "/" + Version
	info := map[string]any{"title": "varco apiserver-proxy", "version": Version}
	for path, document := range map[string]any{
		"/openapi/v2": map[string]any{"swagger": "2.0", "info": info, "paths": map[string]any{}},
		"/openapi/v3": map[string]any{"paths": map[string]any{strings.TrimPrefix(v3, "/openapi/v3/"): map[string]any{"serverRelativeURL": v3}}},
		v3:            map[string]any{"openapi": "3.0.0", "info": info, "paths": operations()},
	} {
		body, err := json.Marshal(document)
		if err != nil {
			return fmt.Errorf("describe %s: %w", path, err)
		}
		d.get(path, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
			w.Header().Set("Content-Type", "application/json")
			_, _ = w.Write(body) // a client that is gone needs no answer
		}))
	}
	return nil
}

// operations describes the proxy paths.
func operations() map[string]any {
	out := map[string]any{}
	for _, r := range resources() {
		resource, _, _ := strings.Cut(r.Name, "/")
		path, scope := "/apis/"+Group+"/"+Version+"/", ""
		if r.Namespaced {
			path, scope = path+"namespaces/{namespace}/", "Namespaced"
		}
		path += resource + "/{name}/proxy"
		out[path] = operation(r, scope, path)
		out[path+"/{path}"] = operation(r, scope+"WithPath", path+"/{path}")
	}
	return out
}

func operation(r metav1.APIResource, suffix, path string) map[string]any {
	var parameters []any
	for part := range strings.SplitSeq(path, "/") {
		if name, ok := strings.CutPrefix(part, "{"); ok {
			parameters = append(parameters, map[string]any{
				"name": strings.TrimSuffix(name, "}"), "in": "path", "required": true, "schema": map[string]any{"type": "string"},
			})
		}
	}
	out := map[string]any{"parameters": parameters}
	for _, method := range []string{"get", "put", "post", "delete", "options", "head", "patch"} {
		out[method] = map[string]any{
			"description":                     "connect " + strings.ToUpper(method) + " requests to " + r.Name,
			"operationId":                     "connect" + strings.ToUpper(method[:1]) + method[1:] + "ProxyVarcoDevV1" + r.Kind + suffix,
			"responses":                       map[string]any{"200": map[string]any{"description": "what the target answers", "content": map[string]any{"*/*": map[string]any{}}}},
			"x-kubernetes-action":             "connect",
			"x-kubernetes-group-version-kind": map[string]any{"group": Group, "version": Version, "kind": r.Kind},
		}
	}
	return out
}
