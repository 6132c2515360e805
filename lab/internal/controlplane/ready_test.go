package controlplane_test

import (
	"encoding/pem"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"varco.dev/lab/internal/controlplane"
)

func TestProbe(t *testing.T) {
	for _, tc := range []struct {
		name, body string
		status     int
		want       string // part of the error, or nothing
	}{
		{"ready", "ok", http.StatusOK, ""},
		{"failed checks", "[+]ping ok\n[-]etcd failed: reason withheld\n[-]rbac failed\n", http.StatusInternalServerError,
			"[-]etcd failed: reason withheld, [-]rbac failed"},
		{"other answer", "who are you?\n", http.StatusUnauthorized, "401 Unauthorized: who are you?"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			server := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
				w.WriteHeader(tc.status)
				io.WriteString(w, tc.body)
			}))
			t.Cleanup(server.Close)
			ca := filepath.Join(t.TempDir(), "ca.crt")
			block := &pem.Block{Type: "CERTIFICATE", Bytes: server.Certificate().Raw}
			if err := os.WriteFile(ca, pem.EncodeToMemory(block), 0o600); err != nil {
				t.Fatal(err)
			}
			probe, err := controlplane.NewProbe(controlplane.Component{Name: "x", Ready: server.URL + "/readyz", CA: ca},
				new(net.Dialer).DialContext)
			if err != nil {
				t.Fatal(err)
			}
			err = probe.Check(t.Context())
			if (err == nil) != (tc.want == "") || err != nil && !strings.Contains(err.Error(), tc.want) {
				t.Errorf("got %v, want %q", err, tc.want)
			}
		})
	}
}

func TestProbeNeedsFiles(t *testing.T) {
	_, err := controlplane.NewProbe(controlplane.Component{Name: "etcd", CA: "/nowhere/ca.crt"}, nil)
	if err == nil || !strings.Contains(err.Error(), "etcd") {
		t.Errorf("got %v", err)
	}
}
