package mount_test

import (
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"testing"

	"github.com/spf13/pflag"
	"k8s.io/client-go/rest"
	"varco.dev/lab/internal/mount"
	"varco.dev/lab/internal/upstream"
)

// What is no proxy path goes on to the server, which the guest has not to know.
func TestJoinHandsOn(t *testing.T) {
	host := upstream.Host{
		Client:  &rest.Config{Host: "https://192.0.2.1"},
		Listens: net.TCPAddrFromAddrPort(netip.MustParseAddrPort("[::]:6443")),
	}
	for _, tc := range []struct {
		args []string
		ok   bool
	}{{nil, true}, {[]string{"--allow-cidr=192.0.2.0/24,2001:db8::/32"}, true}, {[]string{"--allow-cidr=192.0.2.0"}, false}} {
		p := &mount.APIServerProxy{}
		fs := pflag.NewFlagSet("", pflag.ContinueOnError)
		p.AddFlags(fs)
		if err := fs.Parse(tc.args); err != nil {
			t.Fatal(err)
		}
		h, run, err := p.Join(host, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusTeapot) }))
		if (err == nil) != tc.ok || err == nil && run == nil {
			t.Fatalf("%v: %v", tc.args, err)
		}
		if err != nil {
			continue
		}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest(http.MethodGet, "/api/v1/pods", nil))
		if w.Code != http.StatusTeapot {
			t.Errorf("%v: answer %d, want the server's own", tc.args, w.Code)
		}
	}
}
