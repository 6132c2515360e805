package observe_test

import (
	"net/http"
	"net/http/httptest"
	"slices"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"

	"varco.dev/internal/observe"
)

// TestClientMetrics sends a request: client-go counts it in the metrics that were registered first.
func TestClientMetrics(t *testing.T) {
	registry := prometheus.NewRegistry()
	metrics := observe.ClientMetrics()
	prometheus.NewRegistry().MustRegister(metrics) // as for a configuration that is replaced by the next one
	registry.MustRegister(metrics)
	observe.ClientMetrics() // takes nothing away
	server := httptest.NewServer(http.NotFoundHandler())
	defer server.Close()
	client, err := kubernetes.NewForConfig(&rest.Config{Host: server.URL})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := client.CoreV1().Nodes().Get(t.Context(), "a", metav1.GetOptions{}); err == nil {
		t.Fatal("a node came from nowhere")
	}
	host := strings.TrimPrefix(server.URL, "http://")
	got := samples(promhttp.HandlerFor(registry, promhttp.HandlerOpts{}), "/")
	for _, want := range []string{
		`rest_client_requests_total{code="404",host="` + host + `",method="GET"} 1`,
		`rest_client_request_duration_seconds_count{host="` + host + `",verb="GET"} 1`,
		`rest_client_request_size_bytes_count{host="` + host + `",verb="GET"} 1`,
	} {
		if !slices.Contains(got, want) {
			t.Errorf("%s is not in\n%s", want, strings.Join(got, "\n"))
		}
	}
}
