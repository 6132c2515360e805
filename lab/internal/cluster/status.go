package cluster

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
)

// Status is what there is in a lab.
type Status struct {
	Components []Component
	Nodes      []corev1.Node
	Pods       []corev1.Pod
}

// statusTimeout bounds the questions to an API server that may be gone.
const statusTimeout = 5 * time.Second

// Status asks the supervisor and the API server. If only the API server fails to answer, the components are returned
// with the error.
func (c *Cluster) Status(ctx context.Context) (s Status, err error) {
	if s.Components, err = c.Components(ctx); err != nil {
		return s, err
	}
	if !anyRuns(s.Components, "kube-apiserver") {
		return s, errors.New("no kube-apiserver runs, so nodes and pods are not known; `varco-lab start` starts one")
	}
	conf, err := c.RESTConfig()
	if err != nil {
		return s, err
	}
	ctx, cancel := context.WithTimeout(ctx, statusTimeout)
	defer cancel()
	client, err := kubernetes.NewForConfig(conf)
	if err != nil {
		return s, fmt.Errorf("make API client: %w", err)
	}
	nodes, err := client.CoreV1().Nodes().List(ctx, metav1.ListOptions{})
	if err != nil {
		return s, fmt.Errorf("ask the API server for nodes: %w", err)
	}
	pods, err := client.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return s, fmt.Errorf("ask the API server for pods: %w", err)
	}
	s.Nodes, s.Pods = nodes.Items, pods.Items
	return s, nil
}

func anyRuns(list []Component, prefix string) bool {
	return slices.ContainsFunc(list, func(c Component) bool {
		return strings.HasPrefix(c.Name, prefix) && c.State == "running"
	})
}

// Write prints the status as three tables.
func (s Status) Write(out io.Writer) error {
	w := tabwriter.NewWriter(out, 0, 0, 3, ' ', 0)
	fmt.Fprintln(w, "COMPONENT\tHOST\tSTATE\tFOR\tRESTARTS\tMEMORY")
	for _, c := range s.Components {
		state := c.State
		if c.Error != "" {
			state += " (" + c.Error + ")"
		}
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%d\t%d MiB\n", c.Name, c.Host, state, age(c.Since), c.Restarts, c.Memory>>20)
	}
	if len(s.Nodes) > 0 {
		fmt.Fprintln(w, "\nNODE\tREADY\tADDRESSES\tPOD NETWORKS\tAGE")
	}
	for _, n := range s.Nodes {
		fmt.Fprintf(w, "%s\t%s\t%s\t%s\t%s\n", n.Name, nodeReady(n), join(nodeAddresses(n)), join(n.Spec.PodCIDRs),
			age(n.CreationTimestamp.Time))
	}
	if len(s.Pods) > 0 {
		fmt.Fprintln(w, "\nPOD\tNODE\tREADY\tSTATE\tRESTARTS\tADDRESSES\tAGE")
	}
	for _, p := range s.Pods {
		ready, restarts := containers(p)
		fmt.Fprintf(w, "%s/%s\t%s\t%d/%d\t%s\t%d\t%s\t%s\n", p.Namespace, p.Name, dash(p.Spec.NodeName), ready,
			len(p.Spec.Containers), podState(p), restarts, join(podAddresses(p)), age(p.CreationTimestamp.Time))
	}
	return w.Flush()
}

func nodeReady(n corev1.Node) string {
	if reason := readiness(&n); reason != "" {
		return "no (" + reason + ")"
	}
	return "yes"
}

func nodeAddresses(n corev1.Node) (list []string) {
	for _, a := range n.Status.Addresses {
		if a.Type == corev1.NodeInternalIP {
			list = append(list, a.Address)
		}
	}
	return list
}

func podAddresses(p corev1.Pod) (list []string) {
	for _, ip := range p.Status.PodIPs {
		list = append(list, ip.IP)
	}
	return list
}

func podState(p corev1.Pod) string {
	if p.DeletionTimestamp != nil {
		return "Terminating"
	}
	for _, c := range p.Status.ContainerStatuses {
		if c.State.Waiting != nil && c.State.Waiting.Reason != "" {
			return c.State.Waiting.Reason
		}
	}
	return string(p.Status.Phase)
}

func containers(p corev1.Pod) (ready int, restarts int32) {
	for _, c := range p.Status.ContainerStatuses {
		if c.Ready {
			ready++
		}
		restarts += c.RestartCount
	}
	return ready, restarts
}

func join(list []string) string { return dash(strings.Join(list, ",")) }

func dash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// age is the time since then, in its largest unit that is not zero.
func age(t time.Time) string {
	d := time.Since(t)
	switch {
	case d < 2*time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}
