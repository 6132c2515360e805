package ui

// Info is what the page must know about the proxy that serves it. It is JSON at InfoPath. The host name, port and scheme
// of the proxy are not in it: the browser knows by which of them it came.
type Info struct {
	// Version of Varco, for people.
	Version string `json:"version"`
	// APIPrefix is the path that the API is served below, with a slash at its end, such as "/" or "/k8s/"; "" means "/".
	APIPrefix string `json:"apiPrefix"`
	// Cluster is what to call the cluster of APIPrefix, mostly the name of the kubeconfig's current context; "" if it
	// has no name. Without meaning where there are Contexts.
	Cluster string `json:"cluster"`
	// Contexts are those that are served at /clusters/<name>/; nil where only APIPrefix is.
	Contexts []Context `json:"contexts"`
	// OriginDomain is what the hosts of Services end in, without a dot before it: "localhost" makes
	// <port>.<service>.<namespace>.svc.localhost, or with Contexts ….svc.<label>.localhost. "" means that the proxy serves
	// no such hosts, and the page shows no links.
	OriginDomain string `json:"originDomain"`
	// Token is added to links as ?varco-token=…, because no host sees another's cookie. "" for none. Whoever can read
	// the page has it already.
	Token string `json:"token"`
	// ReadOnly says that the proxy passes on nothing that changes the cluster.
	ReadOnly bool `json:"readOnly"`
	// Refused are the classes of requests that the proxy refuses, in words that its flags use: "exec", "attach".
	Refused []string `json:"refused"`
	// Denied are the resources that it refuses, as in --deny.
	Denied []string `json:"denied"`
}

// Context is a context of the kubeconfig.
type Context struct {
	// Name as in the kubeconfig; any text.
	Name string `json:"name"`
	// Label is the DNS label that stands for Name in host names.
	Label string `json:"label"`
	// Current says that it is the kubeconfig's current context, which the page shows first.
	Current bool `json:"current"`
}
