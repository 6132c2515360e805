package cluster

import (
	"bytes"
	"context"
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/remotecommand"
)

// ExecInPod runs a command in the first container of a pod, as kubectl exec does, and returns what it printed. The error has
// what it printed as errors, and its exit code.
func ExecInPod(ctx context.Context, conf *rest.Config, namespace, pod string, command ...string) (string, error) {
	client, err := kubernetes.NewForConfig(conf)
	if err != nil {
		return "", fmt.Errorf("make API client: %w", err)
	}
	request := client.CoreV1().RESTClient().Post().Namespace(namespace).Resource("pods").Name(pod).SubResource("exec").
		VersionedParams(&corev1.PodExecOptions{Command: command, Stdout: true, Stderr: true}, scheme.ParameterCodec)
	executor, err := remotecommand.NewWebSocketExecutor(conf, "GET", request.URL().String())
	if err != nil {
		return "", fmt.Errorf("prepare exec: %w", err)
	}
	var out, errs bytes.Buffer
	err = executor.StreamWithContext(ctx, remotecommand.StreamOptions{Stdout: &out, Stderr: &errs})
	if err != nil {
		return out.String(), fmt.Errorf("run %s in pod %s/%s: %w: %s", strings.Join(command, " "), namespace, pod, err,
			strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}
