package observe_test

import (
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"varco.dev/internal/observe"
)

const notMeant = "\nWarning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is for debugging purposes only.\n"

func TestPages(t *testing.T) {
	verbosity := 0
	pages := observe.Pages{
		Component: "kube-proxy", Version: "v1.2.3", Started: time.Now().Add(-time.Hour),
		Metrics:      observe.Text("some 1\n"),
		Texts:        map[string]string{"/proxyMode": "nftables"},
		Config:       map[string]any{"kubeproxy.config.k8s.io": map[string]string{"mode": "nftables"}},
		Flags:        map[string]string{"v": "2", "proxy-mode": "nftables"},
		Status:       true,
		Profiling:    true,
		SetVerbosity: func(n int) { verbosity = n },
	}.Handler()
	for _, c := range []struct {
		method, path, accept, body string
		code                       int
		want                       string // a trailing … means: begins with
	}{
		{"GET", "/healthz", "", "", 200, "ok"},
		{"GET", "/healthz?verbose", "", "", 200, "[+]ping ok\nhealthz check passed\n"},
		{"GET", "/healthz/ping", "", "", 200, "ok"},
		{"GET", "/metrics", "", "", 200, "some 1\n"},
		{"GET", "/proxyMode", "", "", 200, "nftables"},
		{"GET", "/configz", "", "", 200, `{"kubeproxy.config.k8s.io":{"mode":"nftables"}}`},
		{"GET", "/flagz", "", "", 200, "\nkube-proxy flagz" + notMeant + "proxy-mode=nftables\nv=2\n"},
		{"GET", "/flagz", "*/*", "", 200, "\nkube-proxy flagz…"},
		{"GET", "/flagz", "application/json;as=Flagz;v=v1beta1;g=config.k8s.io", "", 200,
			`{"kind":"Flagz","apiVersion":"config.k8s.io/v1beta1","metadata":{"name":"kube-proxy"},"flags":{"proxy-mode":"nftables","v":"2"}}`},
		{"GET", "/flagz", "application/json;as=Flagz;v=v9;g=config.k8s.io", "", 406, "only text/plain…"},
		{"GET", "/flagz", "application/json", "", 406, "only text/plain…"},
		{"GET", "/statusz", "", "", 200, "\nkube-proxy statusz" + notMeant + "\nStarted: …"},
		{"GET", "/statusz", "text/html, application/json;as=Statusz;v=v1alpha1;g=config.k8s.io", "", 200,
			`{"kind":"Statusz","apiVersion":"config.k8s.io/v1alpha1","metadata":{"name":"kube-proxy"},"startTime":"…`},
		{"GET", "/debug/pprof/", "", "", 200, "<html>…"},
		{"GET", "/debug/flags/v", "", "", 406, "unsupported http method\n"},
		{"PUT", "/debug/flags/v", "", "4", 200, "successfully set klog.logging.verbosity to 4\n"},
		{"PUT", "/debug/flags/v", "", "x", 400, "strconv.Atoi: parsing \"x\": invalid syntax\n"},
		{"PUT", "/debug/flags/v", "", strings.Repeat("4", 1000), 400, "http: request body too large\n"},
		{"GET", "/nothing", "", "", 404, "404 page not found\n"},
	} {
		code, got := ask(pages, c.method, c.path, c.accept, c.body)
		want, open := strings.CutSuffix(c.want, "…")
		if open {
			got = got[:min(len(got), len(want))]
		}
		if code != c.code || got != want {
			t.Errorf("%s %s (Accept %q): got %d %q, want %d %q", c.method, c.path, c.accept, code, got, c.code, c.want)
		}
	}
	if verbosity != 4 {
		t.Errorf("the verbosity is %d", verbosity)
	}
	_, status := ask(pages, "GET", "/statusz", "", "")
	for _, want := range []string{"\nUp: 1 hr 00 min 0", "\nBinary version: v1.2.3\n", "\nPaths: /configz /flagz /healthz /metrics /proxyMode\n"} {
		if !strings.Contains(status, want) {
			t.Errorf("%q is not in /statusz: %s", want, status)
		}
	}
}

func TestPagesThatAreOff(t *testing.T) {
	pages := observe.Pages{Metrics: observe.Text("")}.Handler()
	for _, path := range []string{"/configz", "/flagz", "/statusz", "/debug/pprof/", "/debug/flags/v", "/proxyMode"} {
		if code, _ := ask(pages, "GET", path, "", ""); code != 404 {
			t.Errorf("%s: got %d, want 404", path, code)
		}
	}
}

func TestHealthChecksAreCounted(t *testing.T) {
	pages := observe.Pages{Metrics: observe.Text(""), Started: time.Unix(100, 0)}.Handler()
	ask(pages, "GET", "/healthz", "", "")
	ask(pages, "GET", "/healthz", "", "")
	want := []string{
		`kubernetes_healthcheck{name="ping",type="healthz"} 1`,
		`kubernetes_healthchecks_total{name="ping",status="success",type="healthz"} 2`,
		`process_start_time_seconds 100`,
	}
	if diff := cmp.Diff(want, samples(pages, "/metrics/slis")); diff != "" {
		t.Errorf("-want +got:\n%s", diff)
	}
	if code, got := ask(pages, "DELETE", "/metrics/slis", "", ""); code != 200 || got != "metrics reset\n" {
		t.Errorf("DELETE: got %d %q", code, got)
	}
	if diff := cmp.Diff(want[2:], samples(pages, "/metrics/slis")); diff != "" {
		t.Errorf("after DELETE, -want +got:\n%s", diff)
	}
}

func TestBuildInfo(t *testing.T) {
	for version, numbers := range map[string]string{"v1.2.3": `major="1",minor="2"`, "devel": `major="",minor=""`, "x.y": `major="",minor=""`} {
		registry := prometheus.NewRegistry()
		registry.MustRegister(observe.BuildInfo(version))
		got := samples(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), "/")
		if len(got) != 1 || !strings.Contains(got[0], numbers) || !strings.Contains(got[0], `git_version="`+version+`"`) {
			t.Errorf("for %s: got %q", version, got)
		}
	}
}

func ask(h http.Handler, method, path, accept, body string) (int, string) {
	w := httptest.NewRecorder()
	r := httptest.NewRequest(method, path, strings.NewReader(body))
	if accept != "" {
		r.Header.Set("Accept", accept)
	}
	h.ServeHTTP(w, r)
	return w.Code, w.Body.String()
}

// samples returns the lines of a page of metrics that are no comments.
func samples(h http.Handler, path string) (out []string) {
	_, body := ask(h, "GET", path, "", "")
	for line := range strings.Lines(body) {
		if !strings.HasPrefix(line, "#") {
			out = append(out, strings.TrimSuffix(line, "\n"))
		}
	}
	return out
}
