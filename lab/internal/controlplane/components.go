package controlplane

import (
	"fmt"
	"slices"
	"strings"

	"varco.dev/internal/nettest"
)

// Component is one process of the control plane.
type Component struct {
	// Name is unique in the cluster: the command, with the number of the control plane if there are several.
	Name string
	// Host is the machine that it runs on.
	Host Host
	// Args are the arguments of the lab's binary, or of varco if Varco is true.
	Args  []string
	Varco bool
	// Ready is an https URL on the machine that answers 200 as soon as the component works.
	Ready string
	// CA, Cert and Key are files: who signed the certificate that Ready serves, and what to show it; Cert may be empty.
	CA, Cert, Key string
}

// Stage is a set of components that start at the same time.
type Stage struct {
	Title string
	// Needed says that the components must be ready before those of the next stage start.
	Needed     bool
	Components []Component
}

// Stages returns the components of all control planes in the order in which to start them.
func (l Layout) Stages() []Stage {
	stages := []Stage{
		{Title: "etcd", Needed: true, Components: []Component{l.etcd()}},
		{Title: "kube-apiserver", Needed: true}, {Title: "kube-controller-manager"}, {Title: "kube-scheduler"},
	}
	for i, h := range l.ControlPlanes {
		for j, c := range []Component{l.apiServer(i, h), l.controllerManager(h), l.scheduler(h)} {
			if len(l.ControlPlanes) > 1 {
				c.Name = fmt.Sprintf("%s-%d", c.Name, i)
			}
			c.Host = h
			stages[j+1].Components = append(stages[j+1].Components, c)
		}
	}
	if l.Balancer != nil {
		balancer := Stage{Title: BalancerName, Needed: true, Components: []Component{l.balancer()}}
		stages = slices.Insert(stages, 2, balancer) // the components after it go through it
	}
	return stages
}

func (l Layout) etcd() Component {
	h := l.ControlPlanes[0]
	url := h.url(etcdPort)
	return Component{
		Name: "etcd",
		Host: h,
		Args: []string{"etcd",
			"--data-dir=" + l.Dir + "/etcd",
			"--listen-client-urls=" + url,
			"--advertise-client-urls=" + url,
			"--cert-file=" + l.pki("etcd/server.crt"),
			"--key-file=" + l.pki("etcd/server.key"),
			"--trusted-ca-file=" + l.pki("etcd/ca.crt"),
		},
		Ready: url + "/readyz",
		CA:    l.pki("etcd/ca.crt"),
		Cert:  l.pki("apiserver-etcd-client.crt"),
		Key:   l.pki("apiserver-etcd-client.key"),
	}
}

// HostCommand is the command of the lab's binary that is a kube-apiserver with varco apiserver-proxy in it.
const HostCommand = "kube-apiserver-with-varco"

func (l Layout) apiServer(number int, h Host) Component {
	c := l.plainAPIServer(h)
	if number < l.Hosts {
		c.Args[0] = HostCommand
		// What is outside the cluster is reached where a Service names it: in a lab, the client.
		c.Args = append(c.Args, "--allow-cidr="+both(nettest.ClientNet))
	}
	return c
}

func (l Layout) plainAPIServer(h Host) Component {
	return Component{
		Name: "kube-apiserver",
		Args: []string{"kube-apiserver",
			"--advertise-address=" + h.Addrs[0].String(),
			"--bind-address=::",
			fmt.Sprintf("--secure-port=%d", APIServerPort),
			"--service-cluster-ip-range=" + both(ServiceNet),
			"--etcd-servers=" + l.ControlPlanes[0].url(etcdPort),
			"--etcd-cafile=" + l.pki("etcd/ca.crt"),
			"--etcd-certfile=" + l.pki("apiserver-etcd-client.crt"),
			"--etcd-keyfile=" + l.pki("apiserver-etcd-client.key"),
			"--tls-cert-file=" + l.serving(h) + ".crt",
			"--tls-private-key-file=" + l.serving(h) + ".key",
			"--shutdown-delay-duration=" + l.ShutdownDelay.String(),
			"--client-ca-file=" + l.pki("ca.crt"),
			"--authorization-mode=Node,RBAC",
			"--enable-admission-plugins=NodeRestriction",
			"--allow-privileged=true",
			"--service-account-issuer=" + Issuer,
			"--service-account-key-file=" + l.pki("sa.pub"),
			"--service-account-signing-key-file=" + l.pki("sa.key"),
			"--kubelet-certificate-authority=" + l.pki("ca.crt"),
			"--kubelet-client-certificate=" + l.pki("apiserver-kubelet-client.crt"),
			"--kubelet-client-key=" + l.pki("apiserver-kubelet-client.key"),
			"--kubelet-preferred-address-types=InternalIP",
			"--requestheader-client-ca-file=" + l.pki("front-proxy-ca.crt"),
			"--requestheader-allowed-names=front-proxy-client",
			"--requestheader-username-headers=X-Remote-User",
			"--requestheader-group-headers=X-Remote-Group",
			"--requestheader-extra-headers-prefix=X-Remote-Extra-",
			"--proxy-client-cert-file=" + l.pki("front-proxy-client.crt"),
			"--proxy-client-key-file=" + l.pki("front-proxy-client.key"),
			// Control planes have routes to pods, but no node proxy that would carry cluster IPs.
			"--enable-aggregator-routing=true",
		},
		Ready: h.url(APIServerPort) + "/readyz",
		CA:    l.pki("ca.crt"),
		Cert:  l.pki("apiserver-kubelet-client.crt"),
		Key:   l.pki("apiserver-kubelet-client.key"),
	}
}

func (l Layout) controllerManager(h Host) Component {
	c := l.client(h, "controller-manager", controllerManagerPort)
	c.Args = append(c.Args,
		"--allocate-node-cidrs=true",
		"--cluster-cidr="+both(nettest.PodNet),
		"--service-cluster-ip-range="+both(ServiceNet),
		fmt.Sprintf("--node-cidr-mask-size-ipv4=%d", podMask.v4),
		fmt.Sprintf("--node-cidr-mask-size-ipv6=%d", podMask.v6),
		"--root-ca-file="+l.pki("ca.crt"),
		"--cluster-signing-cert-file="+l.pki("ca.crt"),
		"--cluster-signing-key-file="+l.pki("ca.key"),
		"--service-account-private-key-file="+l.pki("sa.key"),
		"--use-service-account-credentials=true",
		"--node-monitor-period=1s",
	)
	return c
}

func (l Layout) scheduler(h Host) Component { return l.client(h, "scheduler", schedulerPort) }

// client is what kube-controller-manager and kube-scheduler have in common. They serve on the loopback interface only.
func (l Layout) client(h Host, name string, port int) Component {
	kubeconfig := l.componentKubeconfig(h, name)
	return Component{
		Name: "kube-" + name,
		Args: []string{"kube-" + name,
			"--kubeconfig=" + kubeconfig,
			"--authentication-kubeconfig=" + kubeconfig,
			"--authorization-kubeconfig=" + kubeconfig,
			"--bind-address=127.0.0.1",
			fmt.Sprintf("--secure-port=%d", port),
			"--tls-cert-file=" + l.pki(name+".crt"),
			"--tls-private-key-file=" + l.pki(name+".key"),
			fmt.Sprintf("--leader-elect=%t", len(l.ControlPlanes) > 1),
			// The default, 20 requests a second, makes the start of all controllers take 5 s.
			"--kube-api-qps=500",
			"--kube-api-burst=1000",
		},
		Ready: fmt.Sprintf("https://127.0.0.1:%d/healthz", port),
		CA:    l.pki("ca.crt"),
	}
}

func both(d nettest.Dual) string {
	return strings.Join([]string{d.V4.String(), d.V6.String()}, ",")
}
