package demo

import (
	"context"
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"varco.dev/lab/internal/cluster"
)

// lookInside has a proxy tell what it does, as a user would ask it.
func (d *demo) lookInside(ctx context.Context) error {
	last := d.scene.last().Name
	local := d.scene.at(addrsOf(d.scene.last()), nodePort(d.scene.services["local"], "http"))[0]
	for _, q := range []string{
		"status default/echo", "status default/local",
		fmt.Sprintf("explain %s --from %s", local, d.places[fromClient].addrs[0]),
	} {
		d.console.line("%s $ varco kube-proxy %s", last, q)
		text, err := d.askProxy(ctx, last, strings.Fields(q)...)
		if err != nil {
			return err
		}
		for line := range strings.Lines(text) {
			d.console.line("  %s", strings.TrimRight(line, "\n"))
		}
		d.console.line("")
	}
	return nil
}

// askProxy runs a command in the proxy's container on a node, and returns what it printed.
func (d *demo) askProxy(ctx context.Context, node string, args ...string) (string, error) {
	pods, err := d.client.CoreV1().Pods("kube-system").List(ctx, metav1.ListOptions{
		LabelSelector: "k8s-app=kube-proxy", FieldSelector: "spec.nodeName=" + node,
	})
	if err != nil {
		return "", fmt.Errorf("look for the proxy of %s: %w", node, err)
	}
	if len(pods.Items) == 0 {
		return "", fmt.Errorf("look for the proxy of %s: there is no pod of it", node)
	}
	conf, err := d.lab.RESTConfig()
	if err != nil {
		return "", err
	}
	p := pods.Items[0]
	return cluster.ExecInPod(ctx, conf, p.Namespace, p.Name, append([]string{"varco", "kube-proxy"}, args...)...)
}
