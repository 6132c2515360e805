package apiserverproxy_test

import (
	"net/http"
	"net/url"
	"strconv"
	"strings"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer"
	"k8s.io/apimachinery/pkg/types"
	utilnet "k8s.io/apimachinery/pkg/util/net"
	"k8s.io/apimachinery/pkg/util/proxy"
	"k8s.io/apiserver/pkg/endpoints/handlers/responsewriters"
	"k8s.io/apiserver/pkg/endpoints/request"
)

// upstream is what kube-apiserver does with a request whose target is known: ConnectResource and the Connect methods of
// pkg/registry/core/{pod,service,node}, around the same UpgradeAwareHandler.
type upstream struct {
	location  url.URL
	transport http.RoundTripper
}

// ServeHTTP implements http.Handler.
func (u upstream) ServeHTTP(w http.ResponseWriter, r *http.Request) {
	fail := responder{w, r}
	if len(r.URL.Query()["dryRun"]) != 0 {
		fail.Error(apierrors.NewBadRequest("dryRun is not supported"))
		return
	}
	info, _ := request.RequestInfoFrom(r.Context())
	path := ""
	if len(info.Parts) > 3 {
		path = "/" + strings.Join(info.Parts[3:], "/")
	}
	location := u.location
	location.Path = utilnet.JoinPreservingTrailingSlash(location.Path, path)
	proxy.NewUpgradeAwareHandler(&location, u.transport, true, false, proxy.NewErrorResponder(fail)).ServeHTTP(w, r)
}

// responder writes errors as kube-apiserver does.
type responder struct {
	w http.ResponseWriter
	r *http.Request
}

// Error implements proxy.SimpleErrorResponder.
func (e responder) Error(err error) {
	scheme := runtime.NewScheme()
	metav1.AddToGroupVersion(scheme, schema.GroupVersion{Version: "v1"})
	responsewriters.ErrorNegotiated(err, serializer.NewCodecFactory(scheme), schema.GroupVersion{Version: "v1"}, e.w, e.r)
}

func typesUID(name string) types.UID { return types.UID(name) }

func atoi(text string) int {
	n, err := strconv.Atoi(text)
	if err != nil {
		panic(err)
	}
	return n
}
