package main_test

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/vishvananda/netlink/nl"
	"golang.org/x/sys/unix"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"varco.dev/lab/internal/cluster"
)

// pid returns the process of the varco kube-proxy of a node.
func (l *lab) pid(t *testing.T, node string) int {
	t.Helper()
	procs, err := filepath.Glob("/proc/[0-9]*/exe")
	if err != nil {
		t.Fatal(err)
	}
	for _, exe := range procs {
		args, err := os.ReadFile(filepath.Dir(exe) + "/cmdline")
		path, err2 := os.Readlink(exe)
		if err := errors.Join(err, err2); err != nil || !strings.HasSuffix(path, l.varco) {
			continue // another program, or one that has just ended; in a container the path begins elsewhere
		}
		if !strings.Contains(string(args), "--hostname-override="+node+"\x00") {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(exe)))
		if err != nil {
			t.Fatal(err)
		}
		return pid
	}
	t.Fatalf("no varco kube-proxy runs on %s", node)
	return 0
}

// kill ends the varco kube-proxy of a node by SIGKILL; the node agent starts another.
func (l *lab) kill(t *testing.T, node string) {
	t.Helper()
	if err := unix.Kill(l.pid(t, node), unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
}

// proxyPod returns the pod of varco kube-proxy on a node.
func (l *lab) proxyPod(t *testing.T, node string) *corev1.Pod {
	t.Helper()
	pods, err := l.client.CoreV1().Pods(metav1.NamespaceSystem).List(t.Context(), metav1.ListOptions{
		LabelSelector: "k8s-app=kube-proxy", FieldSelector: "spec.nodeName=" + node,
	})
	if err != nil || len(pods.Items) != 1 {
		t.Fatalf("look for the proxy of %s: %d pods, %v", node, len(pods.Items), err)
	}
	return &pods.Items[0]
}

// tell runs a command of varco kube-proxy in the container of the one of a node, as kubectl exec does.
func (l *lab) tell(t *testing.T, node string, args ...string) (string, error) {
	t.Helper()
	conf, err := l.RESTConfig()
	if err != nil {
		t.Fatal(err)
	}
	p := l.proxyPod(t, node)
	return cluster.ExecInPod(t.Context(), conf, p.Namespace, p.Name, append([]string{"varco", "kube-proxy"}, args...)...)
}

// proxyStatus is the part of a status that the tests look at.
type proxyStatus struct {
	Node              string
	Ready             bool
	Problems          []string
	NodePortAddresses []string
	ServiceCIDRs      []string
	Ports             []struct{ Service, State string }
}

func (l *lab) status(t *testing.T, node string) (s proxyStatus, err error) {
	t.Helper()
	text, err := l.tell(t, node, "status", "--output", "json")
	if err != nil {
		return s, err
	}
	return s, json.Unmarshal([]byte(text), &s)
}

// commits returns how many transactions the nftables of a node have seen.
func (l *lab) commits(t *testing.T, node string) (id uint32) {
	t.Helper()
	const idAttribute = 1 // NFTA_GEN_ID
	err := l.open(t, node).Do(func() error {
		r := nl.NewNetlinkRequest(unix.NFNL_SUBSYS_NFTABLES<<8|unix.NFT_MSG_GETGEN, 0)
		r.AddData(&nl.Nfgenmsg{})
		answers, err := r.Execute(unix.NETLINK_NETFILTER, 0)
		if err != nil {
			return err
		}
		for _, a := range answers {
			attrs, err := nl.ParseRouteAttr(a[4:]) // behind a struct nfgenmsg
			if err != nil {
				return err
			}
			for _, at := range attrs {
				if at.Attr.Type == idAttribute {
					id = binary.BigEndian.Uint32(at.Value)
				}
			}
		}
		if id == 0 {
			return fmt.Errorf("%d answers without an id", len(answers))
		}
		return nil
	})
	if err != nil {
		t.Fatalf("ask nftables of %s for its generation: %v", node, err)
	}
	return id
}

// log returns what the varco kube-proxy of a node has written.
func (l *lab) log(t *testing.T, node string) string {
	t.Helper()
	p := l.proxyPod(t, node)
	text, err := l.client.CoreV1().Pods(p.Namespace).GetLogs(p.Name, &corev1.PodLogOptions{}).DoRaw(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}
