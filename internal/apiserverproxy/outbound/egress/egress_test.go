package egress_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"varco.dev/internal/apiserverproxy/outbound/egress"
)

const head = "apiVersion: apiserver.k8s.io/v1beta1\nkind: EgressSelectorConfiguration\negressSelections:\n"

func TestRead(t *testing.T) {
	tests := []struct {
		name, text string
		dials      bool
		want       string // of the error
	}{
		{"gRPC", "- {name: cluster, connection: {proxyProtocol: GRPC, transport: {uds: {udsName: /run/k}}}}", true, ""},
		{"HTTP", "- {name: cluster, connection: {proxyProtocol: HTTPConnect, transport: {uds: {udsName: /run/k}}}}", true, ""},
		{"in capitals", "- {name: Cluster, connection: {proxyProtocol: GRPC, transport: {uds: {udsName: /run/k}}}}", true, ""},
		{"direct", "- {name: cluster, connection: {proxyProtocol: Direct}}", false, ""},
		{"other networks", "- {name: etcd, connection: {proxyProtocol: GRPC, transport: {uds: {udsName: /run/k}}}}", false, ""},
		{"none", "", false, ""},
		{"without TLS", "- {name: cluster, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: http://127.0.0.1:1}}}}", false, "has no TLS"},
		{"without certificates", "- {name: cluster, connection: {proxyProtocol: HTTPConnect, transport: {tcp: {url: https://127.0.0.1:1}}}}", false, "TLSConfig"},
		{"an unknown network", "- {name: moon, connection: {proxyProtocol: Direct}}", false, "moon"},
		{"an unknown field", "- {name: cluster, connection: {proxyProtocol: Direct}, typo: 1}", false, "typo"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			file := filepath.Join(t.TempDir(), "egress.yaml")
			if err := os.WriteFile(file, []byte(head+tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			dial, err := egress.Read(file)
			if (dial != nil) != tt.dials {
				t.Errorf("dials: %t, want %t", dial != nil, tt.dials)
			}
			if (err != nil) != (tt.want != "") || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("got %v, want %q", err, tt.want)
			}
		})
	}
	for _, file := range []string{"", filepath.Join(t.TempDir(), "missing")} {
		if _, err := egress.Read(file); err == nil {
			t.Errorf("no error for %q", file)
		}
	}
}
