package kubeproxy_test

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"testing"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	networkingv1 "k8s.io/api/networking/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/yaml"
	"k8s.io/client-go/kubernetes/scheme"

	"varco.dev/internal/apiwatch"
	"varco.dev/internal/service"
)

// decode reads objects from YAML documents.
func decode(t *testing.T, text []byte) (out []runtime.Object) {
	t.Helper()
	docs := yaml.NewDocumentDecoder(io.NopCloser(bytes.NewReader(text)))
	decoder := scheme.Codecs.UniversalDeserializer()
	buf := make([]byte, 1<<20)
	for {
		n, err := docs.Read(buf)
		if errors.Is(err, io.EOF) {
			return out
		}
		if err != nil {
			t.Fatal(err)
		}
		if len(bytes.TrimSpace(buf[:n])) == 0 {
			continue
		}
		obj, _, err := decoder.Decode(buf[:n], nil, nil)
		if err != nil {
			t.Fatal(err)
		}
		out = append(out, obj)
	}
}

// set puts objects into a table as the watcher does, and returns what was wrong with them.
func set(table *service.Table, objects []runtime.Object) (problems []string) {
	for _, obj := range objects {
		var errs []error
		switch o := obj.(type) {
		case *corev1.Service:
			s, ok, ps := apiwatch.Service(o)
			if errs = ps; ok {
				table.SetService(s)
			}
		case *discoveryv1.EndpointSlice:
			s, ok, ps := apiwatch.Slice(o)
			if errs = ps; ok {
				table.SetSlice(s)
			}
		case *corev1.Node:
			n, ps := apiwatch.NodeOf(o)
			errs = ps
			table.SetNode(n.Table())
			table.SetNodeAddrs(n.Addrs)
		case *networkingv1.ServiceCIDR:
			cidrs, ps := apiwatch.CIDRs(o)
			errs = ps
			table.SetCIDRs(cidrs)
		}
		for _, err := range errs {
			problems = append(problems, fmt.Sprint(err))
		}
	}
	return problems
}
