package node

import (
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"net/http"
	"strconv"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

// ServerConfig is what the kubelet's HTTPS port needs; all are PEM files.
type ServerConfig struct {
	CertFile, KeyFile string
	ClientCAFile      string // who signs the certificates of clients
}

// serve serves port 10250 on all addresses of the node until ctx ends.
func (a *Agent) serve(ctx context.Context) error {
	gate, err := a.newGate()
	if err != nil {
		return err
	}
	cert, err := tls.LoadX509KeyPair(a.cfg.Server.CertFile, a.cfg.Server.KeyFile)
	if err != nil {
		return fmt.Errorf("read certificate of port %d: %w", kubeletPort, err)
	}
	l, err := a.cfg.Namespace.Listen("tcp", net.JoinHostPort("", strconv.Itoa(kubeletPort)))
	if err != nil {
		return fmt.Errorf("listen on port %d: %w", kubeletPort, err)
	}
	s := &http.Server{
		Handler:           a.routes(gate),
		ReadHeaderTimeout: 10 * time.Second,
		BaseContext:       func(net.Listener) context.Context { return ctx },
		ErrorLog:          slog.NewLogLogger(a.cfg.Log.Handler(), slog.LevelDebug), // cut connections
		TLSConfig: &tls.Config{
			Certificates: []tls.Certificate{cert}, ClientAuth: tls.RequestClientCert, NextProtos: []string{"http/1.1"},
		},
	}
	defer context.AfterFunc(ctx, func() { s.Close() })()
	ctx, cancel := context.WithCancel(ctx)
	var watch sync.WaitGroup
	watch.Go(func() { gate.ca.Run(ctx, 1) })
	defer watch.Wait()
	defer cancel()
	if err := s.ServeTLS(l, "", ""); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve port %d: %w", kubeletPort, err)
	}
	return nil
}

func (a *Agent) routes(g *gate) http.Handler {
	guarded := http.NewServeMux()
	guarded.HandleFunc("GET /pods", a.servePods)
	guarded.HandleFunc("GET /pods/", a.servePods)
	guarded.Handle("GET /metrics", promhttp.HandlerFor(a.metrics(), promhttp.HandlerOpts{}))
	guarded.HandleFunc("GET /containerLogs/{namespace}/{pod}/{container}", a.serveLogs)
	guarded.HandleFunc("/exec/{namespace}/{pod}/{container}", a.serveExec)
	guarded.HandleFunc("/exec/{namespace}/{pod}/{uid}/{container}", a.serveExec)
	guarded.HandleFunc("/attach/{namespace}/{pod}/{container}", a.serveAttach)
	guarded.HandleFunc("/attach/{namespace}/{pod}/{uid}/{container}", a.serveAttach)
	guarded.HandleFunc("/portForward/{namespace}/{pod}", a.servePortForward)
	guarded.HandleFunc("/portForward/{namespace}/{pod}/{uid}", a.servePortForward)
	guarded.HandleFunc("/run/", func(w http.ResponseWriter, _ *http.Request) {
		http.Error(w, "the lab's node agent has no run: use kubectl exec", http.StatusNotImplemented)
	})
	guarded.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) { io.WriteString(w, "ok") })
	return g.protect(guarded)
}

// servePods writes a v1.PodList with the status that the agent knows, which the API may not show yet.
func (a *Agent) servePods(w http.ResponseWriter, _ *http.Request) {
	list := v1.PodList{TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "PodList"}, Items: []v1.Pod{}}
	for _, p := range a.list() {
		list.Items = append(list.Items, p.snapshot())
	}
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(list) // the client may be gone
}

// snapshot returns the pod with its present status.
func (p *pod) snapshot() v1.Pod {
	p.mu.Lock()
	defer p.mu.Unlock()
	obj := p.api.DeepCopy()
	if !p.before {
		obj.Status = statusOf(obj, &p.rec, time.Now())
	}
	return *obj
}

// metrics returns the registry of the agent: Go's and the process's own, and the number of pods by phase.
func (a *Agent) metrics() *prometheus.Registry {
	r := prometheus.NewRegistry()
	r.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}), podCollector{a})
	return r
}

// podCollector counts pods when asked.
type podCollector struct{ agent *Agent }

func (podCollector) desc() *prometheus.Desc {
	return prometheus.NewDesc("varco_lab_node_pods", "Pods on the node by phase.", []string{"phase"}, nil)
}

// Describe is in prometheus.Collector.
func (c podCollector) Describe(ch chan<- *prometheus.Desc) { ch <- c.desc() }

// Collect is in prometheus.Collector.
func (c podCollector) Collect(ch chan<- prometheus.Metric) {
	count := map[v1.PodPhase]int{}
	for _, p := range c.agent.list() {
		s := p.snapshot()
		count[s.Status.Phase]++
	}
	for phase, n := range count {
		ch <- prometheus.MustNewConstMetric(c.desc(), prometheus.GaugeValue, float64(n), string(phase))
	}
}
