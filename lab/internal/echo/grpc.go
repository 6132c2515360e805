package echo

import (
	"net/http"
	"strings"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/health/grpc_health_v1"
)

// newGRPC serves the health service of gRPC to who speaks HTTP/2.
func newGRPC() http.Handler {
	g := grpc.NewServer()
	grpc_health_v1.RegisterHealthServer(g, health.NewServer())
	return g
}

// isGRPC tells calls of gRPC's own service from requests that only look like some call, which are echoed.
func isGRPC(r *http.Request) bool {
	return r.ProtoMajor == 2 && strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc") &&
		strings.HasPrefix(r.URL.Path, "/grpc.health.")
}
