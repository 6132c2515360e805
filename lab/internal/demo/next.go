package demo

import (
	"fmt"
	"io"
	"net/netip"
	"net/url"
	"strings"
)

// Endpoints are addresses to go on with, of several kinds.
type Endpoints struct {
	ClusterIP, NodePort, LoadBalancer6 netip.AddrPort
	Page                               string // URL of the start page of varco kubectl-proxy
}

func (s *scene) endpoints() Endpoints {
	if len(s.services) == 0 || len(s.nodes) == 0 {
		return Endpoints{}
	}
	return Endpoints{
		ClusterIP:     s.clusterIPs("echo", 80)[0],
		NodePort:      s.at(addrsOf(s.first()), nodePort(s.services["echo-nodeport"], "http"))[0],
		LoadBalancer6: s.balancer("echo-lb")[1],
	}
}

// PrintNext tells what can be tried in a lab that stays up. verb is how to run a verb of varco-lab on it.
func (e Endpoints) PrintNext(out io.Writer, verb func(string) string, kubeconfig string) {
	fmt.Fprintf(out, "The lab stays up. Open this in a browser for its Services, each by a name of its own:\n\n  %s\n\n", e.Page)
	fmt.Fprintf(out, "In another terminal, as root, try:\n\n")
	kubectl := "kubectl --kubeconfig " + kubeconfig
	tcp := netip.AddrPortFrom(e.ClusterIP.Addr(), 7000)
	for _, line := range []string{
		verb("status"),
		fmt.Sprintf("%s %s", verb("request"), web(e.NodePort)),
		fmt.Sprintf("%s %s -n 1000 -c 8", verb("request"), web(e.LoadBalancer6)),
		fmt.Sprintf("%s tcp://%s --from visitor -n 100", verb("request"), tcp),
		fmt.Sprintf("%s %s --from node-1 -n 100", verb("request"), web(e.ClusterIP)),
		verb("exec") + " node-1 -- cat /proc/net/dev",
		kubectl + " exec -n kube-system ds/kube-proxy -- varco kube-proxy status",
		fmt.Sprintf("%s exec -n kube-system ds/kube-proxy -- varco kube-proxy explain %s", kubectl, e.ClusterIP),
		kubectl + " get --raw /api/v1/namespaces/default/services/echo:http/proxy/",
		kubectl + " get pods,services,endpointslices -o wide",
		kubectl + " scale deployment echo --replicas 10",
	} {
		fmt.Fprintln(out, "  "+line)
	}
	fmt.Fprintf(out, "\nCtrl-C takes it down.\n")
}

// web is the URL of an address as a shell takes it: some shells read brackets as a pattern.
func web(a netip.AddrPort) string {
	u := url.URL{Scheme: "http", Host: a.String(), Path: "/"}
	if a.Port() == 80 {
		u.Host = strings.TrimSuffix(u.Host, ":80")
	}
	if a.Addr().Is6() {
		return "'" + u.String() + "'"
	}
	return u.String()
}
