package controlplane

import (
	"fmt"
	"net/netip"
	"path/filepath"

	"k8s.io/client-go/tools/clientcmd"
	"k8s.io/client-go/tools/clientcmd/api"
)

// adminGroup may do everything, whatever the RBAC objects say.
const adminGroup = "system:masters"

// login is one kubeconfig to be written: where, as whom, and the URL of the API server.
type login struct {
	path, server string
	subject      Subject
}

func (l Layout) writeKubeconfigs(ca *Authority) error {
	for _, k := range l.logins() {
		pair, err := ca.Issue(k.subject)
		if err != nil {
			return err
		}
		if err := clientcmd.WriteToFile(kubeconfig(k, pair, ca.Cert), k.path); err != nil {
			return fmt.Errorf("write %s: %w", k.path, err)
		}
	}
	return nil
}

func (l Layout) logins() []login {
	local := Host{Addrs: []netip.Addr{loopback[0]}}
	logins := []login{{l.Kubeconfig(), local.url(l.LocalPort),
		Subject{CommonName: "kubernetes-admin", Organization: []string{adminGroup}}}}
	for _, h := range l.ControlPlanes {
		server := l.by(h).url(APIServerPort)
		logins = append(logins,
			login{l.componentKubeconfig(h, "controller-manager"), server, Subject{CommonName: "system:kube-controller-manager"}},
			login{l.componentKubeconfig(h, "scheduler"), server, Subject{CommonName: "system:kube-scheduler"}})
	}
	if b := l.Balancer; b != nil {
		logins = append(logins, login{l.balancerFile("kubeconfig"), b.url(APIServerPort), Subject{CommonName: BalancerUser}})
	}
	for i, h := range l.Nodes {
		logins = append(logins, login{filepath.Join(l.NodeDir(h.Name), "kubeconfig"), l.APIServerFor(i).url(APIServerPort),
			Subject{CommonName: "system:node:" + h.Name, Organization: []string{"system:nodes"}}})
	}
	return logins
}

// kubeconfig holds the certificates themselves, so that the file works wherever it is copied to.
func kubeconfig(k login, client Pair, ca []byte) api.Config {
	const name = "varco-lab"
	c := api.NewConfig()
	c.Clusters[name] = &api.Cluster{Server: k.server, CertificateAuthorityData: ca}
	c.AuthInfos[k.subject.CommonName] = &api.AuthInfo{ClientCertificateData: client.Cert, ClientKeyData: client.Key}
	c.Contexts[name] = &api.Context{Cluster: name, AuthInfo: k.subject.CommonName}
	c.CurrentContext = name
	return *c
}
