package inspect_test

import (
	"context"
	"encoding/json"
	"log/slog"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"path/filepath"
	"testing"
	"time"

	"varco.dev/internal/kubeproxy/inspect"
	"varco.dev/internal/service"
)

// FuzzParseQuery reads whatever a user types. What is taken can be told to a table, and means one thing.
func FuzzParseQuery(f *testing.F) {
	for _, seed := range [][2]string{
		{"10.96.0.10:53/udp", ""}, {"[fd00::10]:53", "fd00::1"}, {"10.96.0.10:53", "10.244.0.1"}, {"[::ffff:10.96.0.10]:53/TCP", "::ffff:10.0.0.1"},
		{"[fe80::1%eth0]:80/sctp", "fe80::2%eth0"}, {"10.96.0.10:99999", ""}, {":80", "x"}, {"10.96.0.10:80/", ""}, {"0.0.0.0:0", "0.0.0.0"},
	} {
		f.Add(seed[0], seed[1])
	}
	f.Fuzz(func(t *testing.T, target, from string) {
		q, err := inspect.ParseQuery(target, from)
		if err != nil {
			if err.Error() == "" {
				t.Error("an error says nothing")
			}
			return
		}
		if !q.To.IsValid() || q.To.Addr().Is4In6() || q.From.Is4In6() || q.From.IsValid() != (from != "") {
			t.Errorf("%q from %q: got %+v", target, from, q)
		}
		fromText := ""
		if q.From.IsValid() {
			fromText = q.From.String()
		}
		if again, err := inspect.ParseQuery(q.To.String()+"/"+q.Protocol.String(), fromText); err != nil || again != q {
			t.Errorf("%q from %q: got %+v, which reads as %+v, error %v", target, from, q, again, err)
		}
		x := inspect.Explainer{Table: fuzzTable(), At: func(a netip.Addr) bool { return a.Is4() }}.Explain(q)
		if _, err := json.Marshal(x); err != nil {
			t.Errorf("%+v: %v", x, err)
		}
	})
}

// fuzzTable has a Service of each family at addresses that a fuzzer finds.
func fuzzTable() *service.Table {
	table := service.NewTable("node-1")
	table.SetService(&service.Service{
		Name: service.Name{Namespace: "x", Name: "a"}, ClusterIPs: []netip.Addr{netip.MustParseAddr("10.96.0.10"), netip.MustParseAddr("fd00::10")},
		Ports: []service.ServicePort{{Protocol: service.UDP, Port: 53, NodePort: 80}}, External: service.PolicyLocal,
	})
	table.SetCIDRs([]netip.Prefix{netip.MustParsePrefix("10.96.0.0/16")})
	table.Changes()
	return table
}

// FuzzRequest sends whatever query to a server: it answers with an explanation or with what is wrong, and goes on.
func FuzzRequest(f *testing.F) {
	socket := filepath.Join(f.TempDir(), "proxy.sock")
	server := &inspect.Server{Socket: socket, Source: &source{}, Log: slog.New(slog.DiscardHandler)}
	go server.Run(f.Context())
	client := &http.Client{Transport: &http.Transport{DialContext: func(context.Context, string, string) (net.Conn, error) {
		for deadline := time.Now().Add(5 * time.Second); ; time.Sleep(time.Millisecond) { // until the socket listens
			if c, err := net.Dial("unix", socket); err == nil || time.Now().After(deadline) {
				return c, err
			}
		}
	}}}
	for _, seed := range []string{"to=10.96.0.10:53/udp&from=10.0.0.1", "to=%zz", "to=;", "from=x", "to=[fd00::1]:1&to=2", "", "to=10.96.0.10:53%2Ftcp"} {
		f.Add("/explain", seed)
	}
	f.Add("/status", "x=y")
	f.Add("/../", "")
	f.Fuzz(func(t *testing.T, path, query string) {
		at := &url.URL{Scheme: "http", Host: "proxy", Path: path, RawQuery: query}
		request, err := http.NewRequestWithContext(t.Context(), http.MethodGet, at.String(), nil)
		if err != nil {
			return
		}
		response, err := client.Do(request)
		if err != nil {
			t.Fatalf("%s: %v", at, err)
		}
		defer response.Body.Close()
		var value any
		switch response.StatusCode {
		case http.StatusOK:
			if err := json.NewDecoder(response.Body).Decode(&value); err != nil {
				t.Errorf("%s: %v", at, err)
			}
		case http.StatusBadRequest, http.StatusNotFound:
		default:
			t.Errorf("%s: got %s", at, response.Status)
		}
	})
}
