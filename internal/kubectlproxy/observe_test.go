package kubectlproxy_test

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"net"
	"strings"
	"testing"

	"k8s.io/klog/v2"

	"varco.dev/internal/nettest"
	"varco.dev/internal/observe"
)

// free is a port that nobody listens on.
func free(t *testing.T) server {
	t.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer listener.Close()
	return server{"tcp", listener.Addr().String()}
}

func testMetrics(t *testing.T) {
	at := free(t)
	s := newStage(t, func(s *stage) { s.config.MetricsAddress = at.address })
	s.expect(get("/version"), "200 GET /version", "200 GET /version")
	s.expect(get("/version", "Host: rebound.example"), theirsNo, oursNo)
	s.expect(get("/metrics"), "200 GET /metrics", "200 GET /metrics") // on the port itself it is the API server's
	if got := at.send(t, get("/healthz")); got.Code != 200 {
		t.Errorf("/healthz: %v", got)
	}
	page := at.send(t, get("/metrics")).Body
	for _, want := range []string{
		`varco_http_requests_total{code="200",method="GET"} 2`, `varco_http_requests_total{code="403",method="GET"} 1`,
		`varco_kubectl_proxy_refused_total{rule="accept-hosts"} 1`, `varco_http_request_duration_seconds_count 3`,
		"varco_http_upgrades_open 0", `version="v1.2.3"`,
	} {
		if !strings.Contains(page, want) {
			t.Errorf("/metrics has no %s", want)
		}
	}
}

func testAccessLog(t *testing.T) {
	for _, format := range []string{"text", "json"} {
		t.Run(format, func(t *testing.T) {
			quiet, loud := &nettest.Journal{}, &nettest.Journal{}
			for verbosity, to := range map[int]*nettest.Journal{2: quiet, 3: loud} {
				log, _ := observe.NewLog(to, format, verbosity)
				s := prepare(t, func(s *stage) { s.config.Log = log })
				s.startOurs()
				s.ours.send(t, get("/api/v1/pods?limit=1&token=geheim"))
				if err := s.stop(); err != nil {
					t.Error(err)
				}
			}
			klog.SetSlogLogger(slog.New(slog.DiscardHandler))
			if got := quiet.String(); strings.Contains(got, "/api/v1/pods") {
				t.Errorf("at verbosity 2: %s", got)
			}
			got := loud.String()
			if strings.Contains(got, "geheim") || !strings.Contains(got, "/api/v1/pods") {
				t.Errorf("at verbosity 3: %s", got)
			}
			if format == "json" {
				accessLine(t, got)
			}
		})
	}
}

// accessLine finds the line about the request and looks at what it has.
func accessLine(t *testing.T, log string) {
	t.Helper()
	for line := range strings.Lines(log) {
		var entry map[string]any
		if err := json.Unmarshal([]byte(line), &entry); err != nil {
			t.Fatalf("%q: %v", line, err)
		}
		if entry["path"] != "/api/v1/pods" {
			continue
		}
		for key, want := range map[string]string{"method": "GET", "code": "200", "msg": "request", "v": "3", "host": "localhost"} {
			if got := fmt.Sprint(entry[key]); got != want {
				t.Errorf("%s is %s in %s", key, got, line)
			}
		}
		return
	}
	t.Errorf("no line has the path: %s", log)
}

func testPage(t *testing.T) {
	const page = "text/html; charset=utf-8"
	for _, c := range []struct {
		name   string
		change func(*stage)
		page   bool
	}{
		{"as kubectl proxy", func(*stage) {}, false},
		{"--ui", func(s *stage) { s.config.UI = true }, true},
		{"--api-prefix", withAPIPrefix("/k8s/"), true},
	} {
		t.Run(c.name, func(t *testing.T) {
			s := newStage(t, c.change)
			got := s.ours.send(t, get("/"))
			if is := got.Header.Get("Content-Type") == page; is != c.page || got.Code != 200 {
				t.Errorf("/ is %v, %v", got.Code, got.Header)
			}
			info := s.ours.send(t, get("/-/ui/info.json"))
			if is := strings.Contains(info.Body, "v1.2.3"); is != c.page {
				t.Errorf("/-/ui/info.json is %v", info)
			}
			if hostile := s.ours.send(t, get("/", "Host: rebound.example")).String(); hostile != oursNo {
				t.Errorf("for another host: %v", hostile)
			}
		})
	}
}
